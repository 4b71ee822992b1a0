//! What is known of each vendor's modules, as data. What a return value means on each is in the backend.

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
    /// Sessions of a slot, where neither the operator nor the token sets fewer; 0 is one a core.
    pub sessions: usize,
    /// Whether private-key operations run on this host's own cores.
    pub computes_here: bool,
    /// Limit of one sign call.
    pub call_sign: Duration,
    /// A session unused for so long exercises a key, so that the token does not forget it; zero is never.
    pub keep_alive: Duration,
    /// Whether it sees keys that other programs made only after it was initialised anew.
    pub reads_keys_once: bool,
    /// Whether it makes the IVs of AES-GCM itself, whatever it is given.
    pub makes_gcm_iv: bool,
    /// Where its code runs.
    pub isolation: Isolation,
    /// Worker processes of a token, where it runs in processes; 0 is one a core.
    pub workers: usize,
}

const GENERIC: Traits = Traits {
    name: "generic",
    known_by: &[],
    // Unknown devices may be network HSMs, and answer in parallel; soft tokens only queue.
    sessions: 0,
    computes_here: false,
    call_sign: Duration::from_secs(3),
    // Below the idle time-outs of firewalls and of most HSMs.
    keep_alive: Duration::from_secs(60),
    reads_keys_once: false,
    makes_gcm_iv: false,
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
        match self {
            Profile::Generic => GENERIC,
            Profile::SoftHsm => Traits { name: "softhsm", known_by: &["SoftHSM"], ..SOFT },
            Profile::Kryoptic => Traits { name: "kryoptic", known_by: &["Kryoptic"], ..SOFT },
            Profile::Fake => Traits { name: "fake", ..SOFT },
            Profile::Luna => Traits {
                name: "luna",
                known_by: &["SafeNet", "Thales", "Chrystoki", "Gemalto", "Luna"],
                // A partition's sweet spot (Thales, HA performance).
                sessions: 30,
                // Its high-availability groups fail over by themselves, slowly.
                call_sign: Duration::from_secs(30),
                ..GENERIC
            },
            Profile::NShield => Traits {
                name: "nshield",
                known_by: &["nCipher", "Entrust", "nShield"],
                sessions: 60,
                reads_keys_once: true,
                ..GENERIC
            },
            Profile::CloudHsm => Traits {
                name: "cloudhsm",
                known_by: &["Marvell", "Cavium", "CloudHSM", "Amazon"],
                sessions: 16,
                makes_gcm_iv: true,
                ..GENERIC
            },
            Profile::YubiHsm => Traits {
                name: "yubihsm",
                known_by: &["Yubico"],
                // 16 in all, and it works on one thing at a time.
                sessions: 4,
                // Its sessions die after 30 s.
                keep_alive: Duration::from_secs(10),
                ..GENERIC
            },
        }
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
}
