//! The units as systemd runs them: the sandbox, the sockets, the watchdog, and what systemd says of the processes that come.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::daemon::wait_for;
use crate::machine::Machine;

/// Has SoftHSM2 make a key and sign with it, within the sandbox.
fn certify(machine: &Machine) {
    let key = json!({
        "library": "hsm", "token_label": "ca", "key_label": "ca", "allow_generate_key": true, "any_mount": true,
        "mechanism": "0x1041", "curve": "P256",
    });
    machine.write("sys/managed-keys/pkcs11/ca", key);
    machine.write("sys/mounts/pki", json!({"type": "pki"}));
    let root = json!({"managed_key_name": "ca", "common_name": "Booted Root"});
    assert!(machine.write("pki/root/generate/kms", root)["data"]["certificate"].is_string());
}

#[test]
fn the_units_serve_as_they_are_and_a_restart_refuses_nobody() {
    let Some(mut machine) = Machine::boot() else { return };
    machine.serve();
    certify(&machine);
    assert_eq!(machine.property("keyway.service", "StatusText"), "serving");
    // A container may keep even root from lifting the bound on locked memory.
    let may_lock = machine.told("prlimit --memlock=unlimited:unlimited true").1.status.success();
    let journal = machine.journal();
    let is_due = |line: &&str| may_lock || !line.contains("memory is not locked");
    assert_eq!(journal.lines().filter(|line| line.contains("WARN")).filter(is_due).count(), 0, "{journal}");
    // What is published is for everybody, and what is not is for nobody.
    let cat = |file: &str| {
        let nobody = "setpriv --reuid nobody --regid nogroup --clear-groups";
        machine.told(&format!("{nobody} cat /var/lib/keyway/{file}")).1.status.success()
    };
    assert!(cat("published/root/pki/ca.pem") && !cat("keyway.redb") && !cat("seal.key"));
    let mode = std::fs::metadata(machine.file("/run/keyway/keyway.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "as the socket unit has it");
    let stranger =
        "setpriv --reuid nobody --regid nogroup --clear-groups env VAULT_ADDR=unix:///run/keyway/keyway.sock";
    let denied = machine.told(&format!("{stranger} keyway status")).1;
    assert!(String::from_utf8_lossy(&denied.stderr).contains("Permission denied"), "{denied:?}");
    let before = machine.property("keyway.service", "MainPID");
    machine.run("systemctl restart --no-block keyway.service");
    assert_eq!(machine.curl("", "", "sys/health").0, 200, "it waited for the next one, if it had to");
    wait_for("another process", || {
        let now = machine.property("keyway.service", "MainPID");
        (now != before && now != "0").then_some(())
    });
    assert_eq!(machine.curl(&machine.root_token, "-X PUT", "sys/managed-keys/pkcs11/ca/test/sign").0 / 100, 2);
}

#[test]
fn a_reload_is_told_and_a_mistake_in_the_configuration_ends_nothing() {
    let Some(mut machine) = Machine::boot() else { return };
    machine.serve();
    let config = machine.file("/etc/keyway/production.hcl");
    let good = std::fs::read_to_string(&config).unwrap();
    let reloaded = |told: &str| {
        machine.run("systemctl reload keyway.service");
        wait_for(told, || machine.property("keyway.service", "StatusText").contains(told).then_some(()));
        assert_eq!(machine.property("keyway.service", "ActiveState"), "active");
    };
    std::fs::write(&config, format!("{good}\ncore_dumps = true\n")).unwrap();
    reloaded("restart");
    std::fs::write(&config, format!("{good}\nlimit {{}}\n")).unwrap();
    reloaded("refused");
    assert_eq!(machine.curl("", "", "sys/health").0, 200);
    // At a start such a file is the end: systemd tries no more, and takes the sockets away, so that nobody waits for ever.
    machine.told("systemctl restart keyway.service");
    assert!(machine.journal().contains("status=64/USAGE"), "{}", machine.journal());
    assert!(
        !machine.told("curl -sS -m 60 --unix-socket /run/keyway/keyway.sock http://k/v1/sys/health").1.status.success()
    );
    wait_for("the end of the sockets", || (machine.property("keyway.socket", "ActiveState") == "failed").then_some(()));
    std::fs::write(&config, good).unwrap();
    machine.run("systemctl reset-failed keyway.service keyway.socket && systemctl start keyway.socket");
    assert_eq!(machine.curl("", "", "sys/health").0, 200);
}

#[test]
fn a_daemon_that_hangs_is_restarted_and_who_connects_meanwhile_is_served() {
    let Some(mut machine) = Machine::boot() else { return };
    machine.run(
        "mkdir /etc/systemd/system/keyway.service.d && \
         printf '[Service]\\nWatchdogSec=10\\n' >/etc/systemd/system/keyway.service.d/soon.conf && systemctl daemon-reload",
    );
    machine.serve();
    certify(&machine);
    machine.run("systemctl kill --signal=STOP keyway.service");
    assert_eq!(machine.curl("", "", "sys/health").0, 200);
    assert_eq!(machine.property("keyway.service", "NRestarts"), "1");
    assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());
    assert_eq!(machine.curl(&machine.root_token, "-X PUT", "sys/managed-keys/pkcs11/ca/test/sign").0 / 100, 2);
    let stopped = machine.told("systemctl stop keyway.socket keyway.service");
    assert!(stopped.1.status.success());
    assert_eq!(machine.property("keyway.service", "Result"), "success");
    assert!(!machine.file("/run/keyway/keyway.sock").exists(), "RemoveOnStop=");
}

#[test]
fn units_of_the_system_are_told_from_those_of_a_users_own_manager() {
    let Some(mut machine) = Machine::boot() else { return };
    machine.run("useradd --uid 4242 --groups keyway someone && systemctl start user@4242.service");
    machine.serve();
    for (role, bound) in
        [("job", "job.service"), ("client", "keyway-client@.service"), ("one", "keyway-client@1.service")]
    {
        let told = machine.write(&format!("auth/unix/role/{role}"), json!({"bound_units": bound}));
        assert_eq!(told, serde_json::Value::Null, "the unit lets the daemon see the units of others");
    }
    let system = |options: &str| {
        format!("systemd-run --quiet --wait --collect --pipe -p User=nobody -p SupplementaryGroups=keyway {options}")
    };
    let own = |options: &str| {
        let user = "setpriv --reuid 4242 --regid 4242 --init-groups env XDG_RUNTIME_DIR=/run/user/4242";
        format!("{user} systemd-run --user --quiet --wait --collect --pipe {options}")
    };
    for (command, role, unit) in [
        (system("--unit=job.service"), "job", Some("job.service")),
        (system("--unit=job.service --slice=batch.slice"), "job", Some("job.service")),
        (system("--unit=job.service --slice=machine-batch.slice"), "job", Some("job.service")),
        (system("--unit=other.service"), "job", None),
        (system("--unit=keyway-client@1.service"), "one", Some("keyway-client@1.service")),
        (system("--unit=keyway-client@2.service"), "one", None),
        (system("--unit=keyway-client@2.service"), "client", Some("keyway-client@2.service")),
        // They may call their units as they please.
        (own("--unit=job.service"), "job", None),
        (own("--unit=keyway-client@1.service"), "one", None),
        (own("--unit=job.service --slice=system.slice"), "job", None),
    ] {
        let (status, told) = machine.login_by(&command, role);
        let expected = if unit.is_some() { 200 } else { 403 };
        assert_eq!(status, expected, "{command} {role}: {told}\n{}", machine.journal());
        if let Some(unit) = unit {
            assert_eq!(told["auth"]["metadata"]["unit"], unit);
        }
    }
    // Names of users are those of the host's name service, as the sandbox lets them be seen.
    machine.write("auth/unix/role/someone", json!({"bound_users": "someone", "bound_groups": "keyway"}));
    let (status, told) = machine.login_by("setpriv --reuid 4242 --regid 4242 --init-groups", "someone");
    assert_eq!((status, &told["auth"]["metadata"]["uid"]), (200, &json!("4242")), "{told}");
}
