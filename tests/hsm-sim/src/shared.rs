//! What all processes that load a module share: one mapped file of numbers, so that counts add up and outlive them all.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counts::Calls;
use crate::function::{ALL, COUNT};

/// The file's name in the folder.
const FILE: &str = "state";
/// Lines of steering whose rules may count calls.
pub(crate) const RULES: usize = 65_536;
/// Tokens that may have a device.
const DEVICES: usize = 64;
/// The most servers of a device.
pub(crate) const SERVERS: usize = 64;

/// The name of a function, filled up with zeroes: so the file says what it counts.
type Name = [AtomicU64; 8];

/// The device of one token: when each of its servers will be free (nanoseconds of the monotonic clock, which is one for
/// all processes).
#[repr(C, align(64))]
pub(crate) struct Servers {
    token: AtomicU64,
    pub(crate) wrong_pins: AtomicU64,
    pub(crate) free_at: [AtomicU64; SERVERS],
}

/// The mapped numbers.
#[repr(C)]
pub(crate) struct Shared {
    names: [Name; COUNT],
    pub(crate) calls: Calls,
    rules: [AtomicU64; RULES],
    devices: [Servers; DEVICES],
}

impl Shared {
    /// Maps the file in `folder`, made if it is not there; private memory without a folder.
    pub(crate) fn map(folder: Option<&Path>) -> io::Result<&'static Shared> {
        let file = folder.map(|folder| Shared::file(&folder.join(FILE))).transpose()?;
        let (flags, descriptor) = match &file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place the system chooses.
        let place = unsafe { libc::mmap(ptr::null_mut(), size_of::<Shared>(), access, flags, descriptor, 0) };
        if ptr::eq(place, libc::MAP_FAILED) {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is as large as `Shared` (the file was made so), begins at a page, and is never unmapped. Every
        // field is an atomic number, for which any bytes will do, and which other processes may change.
        Ok(unsafe { &*place.cast::<Shared>() })
    }

    fn file(path: &Path) -> io::Result<File> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        // Whoever comes second writes the same names again.
        if file.metadata()?.len() < size_of::<Shared>() as u64 {
            file.set_len(size_of::<Shared>() as u64)?;
        }
        for (index, function) in ALL.iter().enumerate() {
            file.write_all_at(function.name().as_bytes(), (index * size_of::<Name>()) as u64)?;
        }
        Ok(file)
    }

    /// How often the rule of this line of steering has matched.
    pub(crate) fn rule(&self, line: usize) -> Option<&AtomicU64> {
        self.rules.get(line)
    }

    /// The device of the token of this name.
    pub(crate) fn device(&self, token: &str) -> &Servers {
        let name = fnv(token.as_bytes()).max(1);
        let place = name as usize % DEVICES;
        for device in self.devices[place..].iter().chain(&self.devices[..place]) {
            let owner = device.token.compare_exchange(0, name, Ordering::AcqRel, Ordering::Acquire);
            if owner.is_ok() || owner == Err(name) {
                return device;
            }
        }
        // More tokens than devices: some share one.
        &self.devices[place]
    }

    /// Makes every device free at once, and forgets wrong PINs.
    pub(crate) fn free_devices(&self) {
        for device in &self.devices {
            device.wrong_pins.store(0, Ordering::Release);
            device.free_at.iter().for_each(|server| server.store(0, Ordering::Release));
        }
    }
}

/// The FNV-1a hash: the same in every process.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
