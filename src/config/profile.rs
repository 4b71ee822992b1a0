//! What is known of each vendor's modules, as data. What a return value means on each is in the backend.

use std::path::Path;
use std::time::Duration;

/// Vendor profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Nothing known.
    #[default]
    Generic,
    /// SoftHSM 2.
    SoftHsm,
    /// Kryoptic.
    Kryoptic,
    /// Thales Luna.
    Luna,
    /// Entrust nShield.
    NShield,
    /// AWS CloudHSM.
    CloudHsm,
    /// YubiHSM 2.
    YubiHsm,
    /// No PKCS#11 at all, but one key in a cloud. No configuration file can name it.
    Cloud,
    /// No PKCS#11 at all, but keys in this process: for measuring. No configuration file can name it.
    Fake,
}

/// Where a library's code runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// In the daemon: least overhead; a crash of the module is a crash of the daemon.
    #[default]
    None,
    /// In worker processes: a crash or hang costs a worker's restart.
    Process,
}

/// The facts of one profile. Each can be overridden in the library's stanza.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// The name in the configuration, metrics and logs.
    pub name: &'static str,
    /// Beginnings of `CK_INFO.manufacturerID` or `libraryDescription` by which a module is known; case does not count.
    pub known_by: &'static [&'static str],
    /// File names of its modules, by which one is known before it is loaded: where its code runs must be known by then.
    pub files: &'static [&'static str],
    /// Sessions of a slot, where neither the operator nor the token sets fewer; 0 is one a core.
    pub sessions: usize,
    /// Whether private-key operations run on this host's own cores.
    pub computes_here: bool,
    /// Whether flow control says how many operations there are at once, and when one begins.
    pub flow_control: bool,
    /// Limit of one sign call.
    pub call_sign: Duration,
    /// A session unused for so long exercises a key, so that the token does not forget it; zero is never. Under flow control it
    /// ends, unless it is one of those kept at rest.
    pub keep_alive: Duration,
    /// Whether it sees keys that other programs made only after it was initialised anew.
    pub reads_keys_once: bool,
    /// Whether a key that was away for a moment is away for it until it is initialised anew.
    pub forgets_keys: bool,
    /// Whether it makes the IVs of AES-GCM itself, whatever it is given.
    pub makes_gcm_iv: bool,
    /// Where its code runs.
    pub isolation: Isolation,
    /// Worker processes of a token, where it runs in processes; 0 is one a core.
    pub workers: usize,
}

/// Most worker processes of a token.
pub const WORKERS_MAX: usize = 64;

const GENERIC: Traits = Traits {
    name: "generic",
    known_by: &[],
    files: &[],
    // Unknown devices may be network HSMs, and answer in parallel; soft tokens only queue.
    sessions: 0,
    computes_here: false,
    flow_control: false,
    call_sign: Duration::from_secs(3),
    // Below the idle time-outs of firewalls and of most HSMs.
    keep_alive: Duration::from_secs(60),
    reads_keys_once: false,
    forgets_keys: false,
    makes_gcm_iv: false,
    // Nobody knows whether such a module bears several processes, or another environment than it was tried in.
    isolation: Isolation::None,
    workers: 1,
};

impl Profile {
    /// Every profile a configuration can name.
    pub const ALL: [Profile; 7] = [
        Profile::Generic,
        Profile::SoftHsm,
        Profile::Kryoptic,
        Profile::Luna,
        Profile::NShield,
        Profile::CloudHsm,
        Profile::YubiHsm,
    ];

    /// Its facts.
    pub const fn traits(self) -> Traits {
        // A soft token computes on our own cores: more sessions only make them wait for each other. It never sleeps.
        const SOFT: Traits = Traits { computes_here: true, keep_alive: Duration::ZERO, ..GENERIC };
        // Its client library is C code of the vendor's, whose crash or hang must not be the daemon's. The device, not the
        // client, is what limits the rate: one process of it does.
        const DEVICE: Traits = Traits { isolation: Isolation::Process, workers: 1, ..GENERIC };
        match self {
            Profile::Generic => GENERIC,
            Profile::SoftHsm => Traits {
                name: "softhsm",
                known_by: &["SoftHSM"],
                files: &["libsofthsm2.so"],
                // Its locks have the threads of one process wait for each other; processes sign side by side.
                isolation: Isolation::Process,
                workers: 0,
                // An object whose file it does not find once is invalid from then on.
                forgets_keys: true,
                ..SOFT
            },
            // In the daemon: two processes sign P-256 nearly twice as fast under load, but RSA slower, a lone request by a
            // fifth. And it is written in a memory-safe language, so that there is less to be kept from.
            Profile::Kryoptic => {
                Traits { name: "kryoptic", known_by: &["Kryoptic"], files: &["libkryoptic_pkcs11.so"], ..SOFT }
            }
            // How many calls there are at once is for flow control to say; a session that waits costs little. Calls end by
            // their own clock, before the watchdog's. Unused keys are not exercised, since every call is paid for: a session that
            // is not needed for so long ends.
            Profile::Cloud => Traits {
                name: "cloud",
                sessions: 32,
                flow_control: true,
                call_sign: Duration::from_secs(15),
                ..GENERIC
            },
            Profile::Fake => Traits { name: "fake", ..SOFT },
            Profile::Luna => Traits {
                name: "luna",
                known_by: &["SafeNet", "Thales", "Chrystoki", "Gemalto", "Luna"],
                files: &["libCryptoki2_64.so", "libCryptoki2.so"],
                // A partition's sweet spot (Thales, HA performance).
                sessions: 30,
                // Its high-availability groups fail over by themselves, slowly.
                call_sign: Duration::from_secs(30),
                ..DEVICE
            },
            Profile::NShield => Traits {
                name: "nshield",
                known_by: &["nCipher", "Entrust", "nShield"],
                files: &["libcknfast.so"],
                sessions: 60,
                reads_keys_once: true,
                ..DEVICE
            },
            Profile::CloudHsm => Traits {
                name: "cloudhsm",
                known_by: &["Marvell", "Cavium", "CloudHSM", "Amazon"],
                files: &["libcloudhsm_pkcs11.so"],
                sessions: 16,
                makes_gcm_iv: true,
                ..DEVICE
            },
            Profile::YubiHsm => Traits {
                name: "yubihsm",
                known_by: &["Yubico"],
                files: &["yubihsm_pkcs11.so"],
                // 16 in all, and it works on one thing at a time.
                sessions: 4,
                // Its sessions die after 30 s.
                keep_alive: Duration::from_secs(10),
                ..DEVICE
            },
        }
    }

    /// The profile whose modules have the name of this file, if any has.
    pub fn of_file(path: &Path) -> Option<Profile> {
        let name = path.file_name()?.to_str()?;
        Profile::ALL.into_iter().find(|profile| profile.traits().files.contains(&name))
    }

    /// The profile of a module that says this of itself (`CK_INFO`).
    pub fn detect(manufacturer: &str, description: &str) -> Profile {
        let begins = |text: &str, known: &str| {
            text.trim().get(..known.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(known))
        };
        let knows = |profile: &Profile| {
            let known_by = profile.traits().known_by;
            known_by.iter().any(|known| begins(manufacturer, known) || begins(description, known))
        };
        Profile::ALL.into_iter().find(knows).unwrap_or_default()
    }
}

impl Traits {
    /// Processes that serve a token of a library that runs there: this many worker processes, or the daemon alone.
    pub fn processes(&self, isolation: Isolation) -> usize {
        match isolation {
            Isolation::None => 1,
            Isolation::Process => or_cores(self.workers).min(WORKERS_MAX),
        }
    }
}

/// So many, or one a core where it is 0.
pub fn or_cores(number: usize) -> usize {
    if number > 0 { number } else { std::thread::available_parallelism().map_or(2, usize::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_what_they_say_of_themselves() {
        let seen = [
            ("SoftHSM", "Implementation of PKCS11", Profile::SoftHsm),
            ("Kryoptic", "Kryoptic PKCS11 Module", Profile::Kryoptic),
            ("SafeNet, Inc.", "Chrystoki", Profile::Luna),
            ("nCipher Corp. Ltd", "nFast PKCS#11", Profile::NShield),
            ("Marvell Semiconductors, Inc.", "Marvell PKCS#11 Interface", Profile::CloudHsm),
            ("Yubico (www.yubico.com)", "YubiHSM PKCS#11 Library", Profile::YubiHsm),
            ("Someone", "Something", Profile::Generic),
            ("", "", Profile::Generic),
        ];
        for (manufacturer, description, profile) in seen {
            assert_eq!(Profile::detect(manufacturer, description), profile, "{manufacturer}");
        }
    }

    #[test]
    fn modules_are_known_by_their_files_names_before_they_are_loaded() {
        let seen = [
            ("/usr/lib/softhsm/libsofthsm2.so", Some(Profile::SoftHsm)),
            ("/usr/lib64/pkcs11/libkryoptic_pkcs11.so", Some(Profile::Kryoptic)),
            ("/usr/safenet/lunaclient/lib/libCryptoki2_64.so", Some(Profile::Luna)),
            ("/usr/lunasa/lib/libCryptoki2.so", Some(Profile::Luna)),
            ("/opt/nfast/toolkits/pkcs11/libcknfast.so", Some(Profile::NShield)),
            ("/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", Some(Profile::CloudHsm)),
            ("/usr/lib/x86_64-linux-gnu/pkcs11/yubihsm_pkcs11.so", Some(Profile::YubiHsm)),
            ("libsofthsm2.so", Some(Profile::SoftHsm)),
            ("/opt/libsofthsm2.so/p11.so", None),
            ("/opt/vendor/my-libsofthsm2.so", None),
            ("/opt/vendor/libsofthsm2.so.d", None),
            ("/", None),
            ("", None),
        ];
        for (path, profile) in seen {
            assert_eq!(Profile::of_file(Path::new(path)), profile, "{path}");
        }
        let mut files: Vec<&str> = Profile::ALL.iter().flat_map(|profile| profile.traits().files).copied().collect();
        let all = files.len();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), all, "one file name, one profile");
    }

    #[test]
    fn code_of_known_vendors_runs_in_processes_and_unknown_code_in_the_daemon() {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let expected = [
            (Profile::Generic, Isolation::None, 1),
            (Profile::SoftHsm, Isolation::Process, cores.min(WORKERS_MAX)),
            (Profile::Kryoptic, Isolation::None, 1),
            (Profile::Luna, Isolation::Process, 1),
            (Profile::NShield, Isolation::Process, 1),
            (Profile::CloudHsm, Isolation::Process, 1),
            (Profile::YubiHsm, Isolation::Process, 1),
        ];
        assert_eq!(expected.map(|(profile, ..)| profile), Profile::ALL);
        for (profile, isolation, processes) in expected {
            let traits = profile.traits();
            assert_eq!((traits.isolation, traits.processes(traits.isolation)), (isolation, processes), "{profile:?}");
            assert_eq!(traits.processes(Isolation::None), 1, "{profile:?}");
        }
        let many = Traits { workers: 1000, ..Profile::SoftHsm.traits() };
        assert_eq!(many.processes(Isolation::Process), WORKERS_MAX);
    }
}
