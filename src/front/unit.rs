//! Reads what `/proc` says of a process: its number behind a pidfd, and the systemd unit its cgroup belongs to.
//!
//! Strict where a process could have had a hand in the text: a service may make cgroups below its own, and a user below
//! the one of its session.

use crate::model::Unit;

/// What a slice is called, after its name: only the service manager of the system makes any outside of units.
const SLICE: &str = ".slice";
/// The slice of users' sessions and of their own service managers, whose units are none of the system's.
const OF_USERS: &str = "user.slice";
/// What the units are that a program of the system's runs in.
const SUFFIXES: [&str; 3] = [".service", ".scope", ".socket"];
/// The longest name of a unit, in bytes.
const NAME_BYTES: usize = 255;

/// The process that a pidfd stands for, as its `fdinfo` says; `None` if it has ended, or lives where it has no number here.
pub(super) fn pid_of(fdinfo: &str) -> Option<u32> {
    let told = fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    told.trim().parse().ok().filter(|pid| *pid > 0)
}

/// The unit whose process has this `/proc/PID/cgroup`, by its line of cgroups v2.
pub(super) fn of_cgroups(text: &str) -> Unit {
    let mut unified = text.lines().filter_map(|line| line.strip_prefix("0::"));
    match (unified.next().and_then(unit_of), unified.next()) {
        (Some(name), None) => Unit::Named(name.to_owned()),
        _ => Unit::Other,
    }
}

/// The unit of a cgroup: the first part of its path that is no slice, of those in a slice. What is below that, the unit itself
/// may have made.
fn unit_of(path: &str) -> Option<&str> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let slice = parts.next()?;
    if slice == OF_USERS || !is_slice(slice) {
        return None;
    }
    // systemd puts a `_` before names that the kernel has a use for.
    let part = parts.find(|part| !is_slice(part))?;
    let name = part.strip_prefix('_').unwrap_or(part);
    is_unit(name).then_some(name)
}

fn is_slice(part: &str) -> bool {
    part.strip_suffix(SLICE).is_some_and(|name| !name.is_empty())
}

fn is_unit(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ":-_.\\@".contains(letter);
    let stem = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    name.len() <= NAME_BYTES && stem.is_some_and(|stem| !stem.is_empty() && stem.chars().all(is_plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(path: &str) -> Option<String> {
        of_cgroups(&format!("4:memory:/system.slice/other.service\n0::{path}\n")).name().map(str::to_owned)
    }

    #[test]
    fn a_unit_of_the_system_is_known_by_its_cgroup() {
        for (path, unit) in [
            ("/system.slice/backup.service", "backup.service"),
            ("/system.slice/system-backup.slice/backup@one.service", "backup@one.service"),
            (r"/system.slice/my\x2dbackup.service", r"my\x2dbackup.service"),
            ("/system.slice/_memory.service", "memory.service"),
            ("/system.slice/docker-0123.scope", "docker-0123.scope"),
            ("/system.slice/sshd.socket", "sshd.socket"),
            ("/batch.slice/backup.service", "backup.service"),
            ("/machine.slice/machine-web.slice/backup.service", "backup.service"),
            ("/machine.slice/machine-x.scope/payload/system.slice/backup.service", "machine-x.scope"),
            // A user's manager that an operator has put elsewhere: all that the user makes is that one unit.
            ("/batch.slice/user@1000.service/app.slice/backup.service", "user@1000.service"),
            ("/system.slice/runner.service/backup.service", "runner.service"),
            ("/system.slice/runner.service/system.slice/backup.service", "runner.service"),
        ] {
            assert_eq!(named(path).as_deref(), Some(unit), "{path}");
        }
    }

    #[test]
    fn what_others_than_the_system_can_make_is_no_unit() {
        for path in [
            "/",
            "",
            "system.slice/backup.service",
            "/backup.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service",
            "/user.slice/user-1000.slice/user@1000.service/system.slice/backup.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/session.slice/backup@one.service",
            "/user.slice/backup.service",
            "/.slice/backup.service",
            "/batch.slice.d/backup.service",
            "/../system.slice/backup.service",
            "/system.slice/../user.slice/backup.service",
            "/system.slice/backup.service (deleted)",
            "/system.slice/.service",
            "/system.slice/runner/backup.service",
            "/system.slice//backup.service",
            "/system.slice",
            "/system.slice/backup.mount",
            "/init.scope",
        ] {
            assert_eq!(named(path), None, "{path}");
        }
        assert_eq!(of_cgroups("1:name=systemd:/system.slice/backup.service\n"), Unit::Other, "cgroups of old");
        let twice = "0::/system.slice/backup.service\n0::/system.slice/backup.service\n";
        assert_eq!(of_cgroups(twice), Unit::Other);
    }

    #[test]
    fn a_pidfd_stands_for_a_process_that_has_a_number() {
        assert_eq!(pid_of("pos:\t0\nflags:\t02000002\nPid:\t4711\nNSpid:\t4711\n"), Some(4711));
        for told in ["", "Pid:\t-1\n", "Pid:\t0\n", "NSpid:\t4\n", "Pid:\n", "pid: 4\n"] {
            assert_eq!(pid_of(told), None, "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_harm_and_what_it_names_is_in_the_systems_slice(text in any::<String>()) {
            pid_of(&text);
            for text in [text.clone(), format!("0::{text}"), format!("0::/system.slice/{text}")] {
                if let Unit::Named(name) = of_cgroups(&text) {
                    prop_assert!(is_unit(&name) && !text.contains("0::/user.slice/") && text.contains(".slice/"));
                }
            }
        }

        #[test]
        fn nothing_below_a_unit_changes_which_it_is(below in "(/[a-z.@_-]{1,12}){0,5}") {
            let unit = named(&format!("/system.slice/runner.service{below}"));
            prop_assert_eq!(unit.as_deref(), Some("runner.service"));
            prop_assert_eq!(named(&format!("/user.slice{below}/backup.service")), None);
        }
    }
}
