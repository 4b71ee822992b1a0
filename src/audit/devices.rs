//! The devices there are: kept in the store, read as a snapshot, changed one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::device::Device;
use super::hash::new_salt;
use super::options::Settings;
use super::recording::Recorder;
use crate::config::Limits;
use crate::model::{Fault, Namespace};
use crate::store::{Changes, RecordKey, Store, Versioned, Write};
use crate::telemetry::Telemetry;

/// Devices at most: each has a thread, and every request is recorded by each.
const DEVICES_MAX: usize = 16;
/// Longest path of a device, in bytes.
const PATH_BYTES: usize = 128;
/// Longest description, in bytes.
const DESCRIPTION_BYTES: usize = 1024;
/// The collection of the devices, by their paths.
const COLLECTION: &str = "audit";
/// How long an end waits for the records that are still to be written.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// How a device is stored.
#[derive(Serialize, Deserialize)]
struct DeviceRecord {
    kind: String,
    description: String,
    options: BTreeMap<String, String>,
    local: bool,
    /// The key of its HMACs, in hexadecimal digits.
    salt: Zeroizing<String>,
}

impl Versioned for DeviceRecord {
    const VERSION: u16 = 1;
}

/// A device to be enabled.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// What it is to be called, with or without slashes at its ends.
    pub path: String,
    /// `file`, `socket` or `syslog`.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Its settings.
    pub options: BTreeMap<String, String>,
    /// Told, and of no effect: there is no other cluster that it could be copied to.
    pub local: bool,
}

/// A device, as it is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownDevice {
    /// What it is called, ending in `/`.
    pub path: String,
    /// Its type.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Its settings, as they were given.
    pub options: BTreeMap<String, String>,
    /// As it was given.
    pub local: bool,
}

/// The audit devices. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    store: Store,
    telemetry: Telemetry,
    record_bytes: usize,
    queue_bytes: usize,
    changes: Changes,
    table: ArcSwap<Table>,
    /// Never on again.
    ended: AtomicBool,
}

/// What is on.
#[derive(Clone, Default)]
struct Table {
    devices: Arc<Vec<Arc<Device>>>,
    shown: Vec<ShownDevice>,
}

impl Audit {
    /// The devices of this store. None is on before [`Audit::load`].
    pub fn new(store: Store, limits: &Limits, telemetry: Telemetry) -> Audit {
        Audit(Arc::new(Inner {
            store,
            telemetry,
            record_bytes: limits.audit_record_bytes,
            queue_bytes: limits.audit_queue_bytes,
            changes: Changes::default(),
            table: ArcSwap::default(),
            ended: AtomicBool::new(false),
        }))
    }

    /// Reads the devices from the store, and turns them on: from here on nothing is done that none of them records. One that
    /// cannot be written now is on all the same.
    pub fn load(&self) -> Result<(), Fault> {
        let inner = &self.0;
        let records = inner.store.read_all::<DeviceRecord>(&Namespace::root(), COLLECTION, None, DEVICES_MAX)?;
        let mut table = Table::default();
        for (path, record) in records {
            let salt = hex::decode(record.salt.as_bytes()).map(Zeroizing::new);
            let salt = salt.map_err(|_| Fault::internal("an audit device's record has no key"))?;
            let device = Arc::new(inner.start(&path, &record.kind, &record.options, &salt)?);
            // What is wrong with it is in the log at once.
            device.reopen();
            table.add(device, shown(path, record));
        }
        inner.replace(table);
        Ok(())
    }

    /// Turns all devices off until they are loaded again. What waits is written.
    pub(super) fn close(&self) {
        self.0.replace(Table::default());
    }

    /// Turns all devices off for good, and waits for their last records. Blocks.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        let devices = Arc::clone(&self.0.table.load().devices);
        self.close();
        let end = Instant::now() + LAST_RECORDS;
        for device in devices.iter().filter(|device| !device.join(end)) {
            tracing::error!(
                device = device.path,
                "the audit device does not finish its last records: they may be lost"
            );
        }
    }

    /// Refuses what comes after the end.
    ///
    /// # Errors
    ///
    /// [`Fault::Sealed`], as that is why they ended.
    pub fn check_on(&self) -> Result<(), Fault> {
        if self.0.ended.load(Ordering::Acquire) { Err(Fault::Sealed) } else { Ok(()) }
    }

    /// Who records a request that comes now; `None` while no device is on.
    ///
    /// # Errors
    /// [`Fault::Sealed`] once they have ended: what is held up so long is not done unrecorded.
    pub fn recorder(&self) -> Result<Option<Recorder>, Fault> {
        self.check_on()?;
        let table = self.0.table.load();
        if table.devices.is_empty() {
            return Ok(None);
        }
        Ok(Some(Recorder { devices: Arc::clone(&table.devices), bytes_max: self.0.record_bytes }))
    }

    /// Notes that a request was refused, or its answer withheld, since no device recorded it.
    pub fn count_unrecorded(&self) {
        self.0.telemetry.audit_refused();
    }

    /// Has every device let go of its file or connection in favour of what is at its path or address now: the file was moved
    /// away, say.
    pub fn reopen(&self) {
        self.0.table.load().devices.iter().for_each(|device| device.reopen());
    }

    /// The devices, by their paths.
    pub fn list(&self) -> Vec<ShownDevice> {
        self.0.table.load().shown.clone()
    }

    /// What stands in the records of a device for `value`; `None` without such a device.
    pub fn hash(&self, path: &str, value: &[u8]) -> Option<String> {
        let path = format!("{}/", path.trim_matches('/'));
        let table = self.0.table.load();
        let device = table.devices.iter().find(|device| device.path == path)?;
        Some(device.hasher.hash(value))
    }

    /// Turns a device on. Its first record tells of nothing: it is to show that it can be written.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] for settings that cannot be, for a device that cannot be written, and one too many.
    pub async fn enable(&self, new: NewDevice) -> Result<(), Fault> {
        let path = valid_path(&new.path)?;
        if new.description.len() > DESCRIPTION_BYTES {
            return Err(Fault::invalid(format!("the description has more than {DESCRIPTION_BYTES} bytes")));
        }
        self.0.check_room(&path)?;
        let salt = new_salt()?;
        let device = Arc::new(self.0.start(&path, &new.kind, &new.options, &salt)?);
        if let Err(why) = device.try_out().await {
            return Err(Fault::invalid(format!("the device is not enabled, since it cannot be written: {why}")));
        }
        if device.settings.is_raw {
            tracing::warn!(device = path, "log_raw: this audit device gets tokens, PINs and plaintexts as they are");
        }
        let record = DeviceRecord {
            kind: new.kind,
            description: new.description,
            options: new.options,
            local: new.local,
            salt: Zeroizing::new(hex::encode(&*salt)),
        };
        let inner = Arc::clone(&self.0);
        self.0.changes.run(&Namespace::root(), move || inner.add(path, record, device)).await
    }

    /// Turns a device off, and forgets it with its key. False if there is none. What it has recorded the request of, it still
    /// gets the answer of.
    pub async fn disable(&self, path: &str) -> Result<bool, Fault> {
        let (inner, path) = (Arc::clone(&self.0), format!("{}/", path.trim_matches('/')));
        self.0.changes.run(&Namespace::root(), move || inner.remove(&path)).await
    }
}

impl Inner {
    fn start(&self, path: &str, kind: &str, options: &BTreeMap<String, String>, salt: &[u8]) -> Result<Device, Fault> {
        let settings = Settings::read(kind, options)?;
        Device::start(path.to_owned(), settings, salt, self.queue_bytes, self.telemetry.clone())
    }

    fn check_room(&self, path: &str) -> Result<(), Fault> {
        let table = self.table.load();
        let overlaps = |taken: &&ShownDevice| taken.path.starts_with(path) || path.starts_with(&taken.path);
        if let Some(taken) = table.shown.iter().find(overlaps) {
            return Err(Fault::invalid(format!("path already in use at {}", taken.path)));
        }
        if table.shown.len() >= DEVICES_MAX {
            return Err(Fault::invalid(format!("there are {DEVICES_MAX} audit devices: disable one first")));
        }
        Ok(())
    }

    /// Part of a change.
    fn add(&self, path: String, record: DeviceRecord, device: Arc<Device>) -> Result<(), Fault> {
        // Another may have come meanwhile.
        self.check_room(&path)?;
        self.store.commit_now(vec![Write::put_record(key(&path), &record)?])?;
        let mut table = Table::clone(&self.table.load());
        table.add(device, shown(path, record));
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Part of a change.
    fn remove(&self, path: &str) -> Result<bool, Fault> {
        let mut table = Table::clone(&self.table.load());
        if !table.shown.iter().any(|shown| shown.path == path) {
            return Ok(false);
        }
        self.store.commit_now(vec![Write::Delete { key: key(path) }])?;
        table.devices = Arc::new(table.devices.iter().filter(|device| device.path != path).cloned().collect());
        table.shown.retain(|shown| shown.path != path);
        // The requests that it has begun with, this one among them, end with it. Then the last lets it go.
        self.table.store(Arc::new(table));
        Ok(true)
    }

    fn replace(&self, table: Table) {
        let before = self.table.swap(Arc::new(table));
        before.devices.iter().for_each(|device| device.close());
    }
}

impl Table {
    fn add(&mut self, device: Arc<Device>, shown: ShownDevice) {
        let mut devices = Vec::clone(&self.devices);
        devices.push(device);
        self.devices = Arc::new(devices);
        self.shown.push(shown);
    }
}

fn shown(path: String, record: DeviceRecord) -> ShownDevice {
    let DeviceRecord { kind, description, options, local, .. } = record;
    ShownDevice { path, kind, description, options, local }
}

fn key(path: &str) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, path)
}

/// A device's path in its one spelling: parts of letters, digits, `-`, `_` and `.`, ending in `/`.
fn valid_path(path: &str) -> Result<String, Fault> {
    let path = path.trim_matches('/');
    let is_plain = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
    };
    if path.len() >= PATH_BYTES || !path.split('/').all(is_plain) {
        let what = format!(
            "the path of an audit device is parts of letters, digits, '-', '_' and '.', not beginning in '.', of less than \
             {PATH_BYTES} bytes"
        );
        return Err(Fault::invalid(what));
    }
    Ok(format!("{path}/"))
}
