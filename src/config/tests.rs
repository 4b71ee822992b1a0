//! What operators write, and what they are told.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::CloudService;

const LEAST: &str = r#"
listener "unix" { address = "/run/k.sock" }
storage "redb" { path = "/var/k.redb" }
seal "file" { path = "/var/k.key" }
"#;

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(Path::new("k.hcl"), text)
}

/// What is said about [`LEAST`] with this after it.
fn told(more: &str) -> String {
    parse(&format!("{LEAST}{more}")).expect_err(more).to_string()
}

#[test]
fn the_least_configuration_takes_every_default() {
    let config = parse(LEAST).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Text));
    assert_eq!(config.listeners[0].socket_mode, 0o600);
    assert_eq!(config.listeners[0].protocol, Protocol::Http);
    assert!(config.kms_libraries.is_empty() && config.warnings.is_empty());
}

#[test]
fn every_field_is_read() {
    let config = parse(
        r#"
        listener "unix" {
          address = "unix:///run/k.sock"
          protocol = "framed"
          socket_mode = "0660"
          socket_user = "keyway"
          socket_group = "100"
          allow_uids = [1, 2]
          allow_gids = [3]
          implicit_auth = true
        }
        storage "redb" { path = "/var/k.redb" }
        seal "file" { path = "/var/k.key" }
        kms_library "pkcs11" {
          name = "luna"
          library = "/usr/safenet/lib/libCryptoki2_64.so"
          profile = "luna"
          pin = "1234"
          max_sessions = 12
        }
        telemetry { prometheus_listener = "unix:///run/metrics.sock" }
        limits {
          batch_items = 20000
          lane_jobs = 100
          lane_bytes = "1MiB"
          batch_time = "2ms"
          deadline = 3
          frame_bytes = "2MiB"
          call_sign = "7s"
        }
        publish_dir = "/srv/pki"
        log_level = "debug"
        log_format = "json"
        "#,
    )
    .unwrap();
    let listener = Listener {
        address: "/run/k.sock".into(),
        protocol: Protocol::Framed,
        socket_mode: 0o660,
        socket_user: Some("keyway".into()),
        socket_group: Some("100".into()),
        allow_uids: vec![1, 2],
        allow_gids: vec![3],
        implicit_auth: true,
    };
    assert_eq!(config.listeners, [listener]);
    let library = &config.kms_libraries[0];
    assert_eq!((library.name.as_str(), library.profile, library.max_sessions), ("luna", Some(Profile::Luna), Some(12)));
    assert_eq!(library.pin.as_ref().unwrap().expose(), b"1234");
    assert!(config.warnings[0].contains("k.hcl:14:9"), "{:?}", config.warnings);
    assert_eq!(config.telemetry.prometheus_listener, Some(PrometheusListener::Unix("/run/metrics.sock".into())));
    let limits = &config.limits;
    assert_eq!((limits.batch_items, limits.http_body_values), (20_000, 160_000));
    assert_eq!((limits.lane_jobs, limits.lane_jobs_per_namespace), (100, 100));
    assert_eq!((limits.lane_bytes, limits.lane_bytes_per_namespace), (1 << 20, 1 << 20));
    assert_eq!((limits.batch_time, limits.deadline), (Duration::from_millis(2), Duration::from_secs(3)));
    assert_eq!((limits.frame_bytes, limits.call_sign), (2 << 20, Some(Duration::from_secs(7))));
    assert_eq!(config.publish_dir, Some("/srv/pki".into()));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Debug, LogFormat::Json));
}

#[test]
fn a_mistake_is_pointed_at() {
    for (text, place, expected) in [
        (
            "log_levle = \"info\"",
            "k.hcl:5:1",
            "unknown field \"log_levle\"; expected here: core_dumps, lock_memory, log_format, log_level",
        ),
        ("lisener \"unix\" {}", "k.hcl:5:1", "unknown stanza \"lisener\""),
        ("listener \"tcp\" { address = \"/x\" }", "k.hcl:5:10", "expected listener \"unix\" { … }"),
        ("limits \"x\" {}", "k.hcl:5:8", "without a label"),
        ("limits = 3", "k.hcl:5:1", "limits is a stanza"),
        ("log_level {}", "k.hcl:5:1", "log_level is a field"),
        ("log_level = \"loud\"", "k.hcl:5:13", "expected one of \"trace\", \"debug\", \"info\", \"warn\", \"error\""),
        ("log_level = 3", "k.hcl:5:13", "expected one of"),
        ("limits { batch_max = \"many\" }", "k.hcl:5:22", "expected a whole number from 1 to 1024"),
        ("limits { batch_max = 0 }", "k.hcl:5:22", "expected a whole number from 1 to 1024"),
        ("limits { deadline = \"2h\" }", "k.hcl:5:21", "expected a duration from 1ms to 60s"),
        ("limits { frame_bytes = \"2GB\" }", "k.hcl:5:24", "\"64KiB\""),
        (
            "limits { retry_burst = 0 }",
            "k.hcl:5:10",
            "no room for what retry_percent = 10 allows; make it 1 or more, or both",
        ),
        ("limits { retry_percent = 0 }", "k.hcl:5:10", "never refills retry_burst = 256; make it 1 or more, or both 0"),
        ("limits { x = 1 }", "k.hcl:5:10", "unknown field \"x\"; expected in limits: attempts, audit_queue_bytes"),
        ("publish_dir = \"/a/${b}\"", "k.hcl:5:15", "without ${…}"),
        ("listener \"unix\" { protocol = \"http\" }", "k.hcl:5:1", "listener \"unix\" needs the field \"address\""),
        ("listener \"unix\" { address = \"127.0.0.1:8200\" }", "k.hcl:5:19", "expected the absolute path"),
        ("listener \"unix\" { address = \"/run/k.sock\" }", "k.hcl:5:1", "already, at k.hcl:2:1"),
        ("seal \"file\" { path = \"/x\" }", "k.hcl:5:1", "seal is set already, at k.hcl:4:1"),
        ("log_level = \"info\"\nlog_level = \"warn\"", "k.hcl:6:", "redefined attribute"),
        ("telemetry { prometheus_listener = \"9464\" }", "k.hcl:5:35", "expected an address and port"),
        ("listener \"unix\" {\n address = \"/a\"\n socket_mode = 660\n}", "k.hcl:7:16", "expected octal digits"),
        ("listener \"unix\" {\n address = \"/a\"\n allow_uids = [\"joe\"]\n}", "k.hcl:7:15", "a list of numbers"),
        ("log_level = ", "k.hcl:5:", ""),
    ] {
        let told = told(text);
        assert!(told.starts_with(place) && told.contains(expected), "{text}: {told}");
        assert!(!told.contains('\n'), "{text}: {told}");
    }
}

#[test]
fn two_libraries_of_one_name_are_refused_whatever_the_case() {
    let library = |name: &str| format!("kms_library \"pkcs11\" {{\n name = \"{name}\"\n library = \"/x.so\"\n}}\n");
    let told = told(&(library("hsm") + &library("HSM")));
    assert!(told.contains("k.hcl:9:1: there is a kms_library of this name already, at k.hcl:5:1"), "{told}");
}

#[test]
fn everything_wrong_is_told_at_once_in_order() {
    let told = told("log_level = 1\nlimits {\n  x = 1\n  workers = 0\n}\npublish_dir = 7");
    let places: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["k.hcl:5:13", "k.hcl:7:3", "k.hcl:8:13", "k.hcl:10:15"]);
}

#[test]
fn what_is_missing_is_shown() {
    let told = parse("log_level = \"info\"").unwrap_err().to_string();
    assert_eq!(told.lines().count(), 3);
    assert!(told.contains("k.hcl: expected a stanza such as storage \"redb\""), "{told}");
}

#[test]
fn a_pin_may_stand_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pin");
    std::fs::write(&file, "98 76\n").unwrap();
    let library = |pin: &str| {
        format!("{LEAST}kms_library \"pkcs11\" {{\n name = \"a\"\n library = \"/x.so\"\n pin = \"{pin}\"\n}}")
    };
    let config = parse(&library(&format!("file:{}", file.display()))).unwrap();
    assert_eq!(config.kms_libraries[0].pin.as_ref().unwrap().expose(), b"98 76");
    assert!(config.warnings.is_empty());
    // Every process has a PATH.
    let config = parse(&library("env:PATH")).unwrap();
    assert_eq!(config.kms_libraries[0].pin.as_ref().unwrap().expose_str(), std::env::var("PATH").ok().as_deref());
    for (pin, expected) in [
        ("env:KEYWAY_NO_SUCH_VARIABLE", "expected the environment variable KEYWAY_NO_SUCH_VARIABLE to be set"),
        ("file:/no/such/file", "/no/such/file cannot be read"),
        ("credential:../x", "expected the name of a credential"),
        ("file:pin", "expected an absolute path"),
    ] {
        let told = parse(&library(pin)).unwrap_err().to_string();
        assert!(told.starts_with("k.hcl:8:8: pin: ") && told.contains(expected), "{told}");
    }
}

#[test]
fn a_folder_is_read_as_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert!(Config::load(folder.path()).unwrap_err().to_string().contains("expected .hcl files"));
    write("a.hcl", LEAST);
    write("b.hcl", "log_level = \"warn\"");
    write("notes.txt", "not a configuration");
    assert_eq!(Config::load(folder.path()).unwrap().log_level, LogLevel::Warn);
    write("c.hcl", "\n log_level = \"info\"");
    let told = Config::load(folder.path()).unwrap_err().to_string();
    assert!(told.contains("c.hcl:2:2: log_level is set already, at") && told.contains("b.hcl:1:1"), "{told}");
    let told = Config::load(&folder.path().join("none.hcl")).unwrap_err().to_string();
    assert!(told.contains("none.hcl: cannot be read"), "{told}");
}

#[test]
fn brackets_without_end_are_refused() {
    let told = told(&format!("a = {}", "[".repeat(100_000)));
    assert!(told.contains("at most 32 brackets"), "{told}");
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in "[a-z_\"= {}\\[\\]0-9\n$<#/.,-]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_of_a_good_text_breaks_the_parser(at in 0..LEAST.len(), with in any::<char>()) {
        let mut text: Vec<char> = LEAST.chars().collect();
        text[at] = with;
        let _ = parse(&text.into_iter().collect::<String>());
    }
}

const LUNA: &str = "kms_library \"pkcs11\" {\n name = \"luna\"\n library = \"/l.so\"\n pin = \"1\"\n}\n";
const BARE: &str = "kms_library \"pkcs11\" {\n name = \"bare\"\n library = \"/b.so\"\n}\n";

#[test]
fn pools_and_namespaces_are_read() {
    let config = parse(&format!(
        r#"{LEAST}{LUNA}{BARE}
        kms_pool "ca" {{
          member {{
            library = "Luna"
            token_label = "p1"
          }}
          member {{
            library = "bare"
            serial = "4711"
            pin = "9999"
            max_sessions = 8
          }}
        }}
        namespace "team-a/ci" {{ weight = 3 }}
        namespace "team-b" {{}}
        "#
    ))
    .unwrap();
    let pool = &config.kms_pools[0];
    assert_eq!((pool.name.as_str(), pool.members.len()), ("ca", 2));
    assert_eq!(pool.members[0].token, TokenSelector::Label("p1".into()));
    assert_eq!(pool.members[1].token, TokenSelector::Serial("4711".into()));
    assert_eq!(pool.members[1].max_sessions, Some(8));
    assert_eq!(pool.members[1].pin.as_ref().map(Secret::expose), Some(&b"9999"[..]));
    let namespaces: Vec<(&str, u32)> =
        config.namespaces.iter().map(|namespace| (namespace.path.as_str(), namespace.weight)).collect();
    assert_eq!(namespaces, [("team-a/ci/", 3), ("team-b/", 1)]);
    assert!(config.warnings.iter().any(|warning| warning.contains("kms_pool \"ca\"")), "{:?}", config.warnings);
}

#[test]
fn a_pool_that_cannot_work_is_refused_with_the_reason() {
    let pool = |name: &str, members: &str| format!("{LUNA}{BARE}kms_pool \"{name}\" {{\n{members}\n}}\n");
    let member = |more: &str| format!("member {{\n library = \"luna\"\n {more}\n}}\n");
    let one = member("token_label = \"t\"");
    let cases = [
        (pool("p", ""), "from 1 to 64"),
        (pool("p", &member("")), "exactly one of token_label, serial and slot"),
        (pool("p", &member("token_label = \"t\"\n slot = 1")), "exactly one of"),
        (pool("p", &member("token_label = \"t\"\n colour = 1")), "unknown field \"colour\""),
        (pool("LUNA", &one), "share one name"),
        (pool("None", &one), "no kms_pool may be called \"None\": metrics call"),
        (pool("luna/slot 3", &one), "no kms_pool may be called \"luna/slot 3\""),
        (LUNA.replace("\"luna\"", "\"lu/na\""), "a name without \"/\""),
        (pool("p", &one.replace("luna", "moon")), "there is no kms_library \"moon\""),
        (pool("p", &one.replace("luna", "bare")), "needs a pin"),
        (pool("p", &format!("{one}{one}")), "is in kms_pool \"p\" already"),
        (format!("{}kms_pool {{}}", pool("p", &one)), "expected kms_pool \"NAME\""),
        ("namespace \"sys\" {}".to_owned(), "the API has paths of that name"),
        ("namespace \"/\" {}".to_owned(), "expected a path"),
        ("namespace \"a/sys\" {}".to_owned(), "no namespace may be called \"sys\""),
        ("namespace \"a/../b\" {}".to_owned(), "not beginning or ending in '.'"),
        ("namespace \"a b\" {}".to_owned(), "expected parts of letters"),
        ("namespace \"caf\u{e9}\" {}".to_owned(), "expected parts of letters"),
        ("namespace \"a%2fb\" {}".to_owned(), "expected parts of letters"),
        ("namespace \"a\" { weight = 0 }".to_owned(), "from 1 to 1000"),
    ];
    for (text, expected) in cases {
        let told = told(&text);
        assert!(told.contains(expected), "{text}: {told}");
    }
}

#[test]
fn worker_processes_are_asked_for_by_isolation() {
    let library = |more: &str| format!("{LEAST}{}", LUNA.replace("pin =", &format!("{more}\n pin =")));
    let config =
        parse(&library("isolation = \"process\"\n workers = 3\n env = { ChrystokiConfigurationPath = \"/etc/l\" }"));
    let config = config.unwrap();
    let luna = &config.kms_libraries[0];
    assert_eq!((luna.isolation, luna.workers), (Isolation::Process, 3));
    assert_eq!(luna.env["ChrystokiConfigurationPath"], "/etc/l");
    assert_eq!(luna.keep_alive, None);
    let keep_alive = parse(&library("keep_alive = \"5s\"\n verify_after_sign = \"always\"")).unwrap();
    assert_eq!(keep_alive.kms_libraries[0].keep_alive, Some(Duration::from_secs(5)));
    assert_eq!(keep_alive.kms_libraries[0].verify_after_sign, VerifyAfterSign::Always);
    let never = parse(&library("keep_alive = \"0s\"")).unwrap();
    assert_eq!(never.kms_libraries[0].keep_alive, Some(Duration::ZERO));
    for short in ["1ms", "999ms"] {
        let told = parse(&library(&format!("keep_alive = \"{short}\""))).unwrap_err().to_string();
        assert!(
            told.contains("keep_alive: expected a duration from 1s to 86400s, such as \"30s\", or \"0s\" for never")
        );
    }
    for more in ["workers = 2", "env = { A = \"b\" }"] {
        let told = parse(&library(more)).unwrap_err().to_string();
        assert!(told.contains("needs isolation"), "{told}");
        let told =
            parse(&library(&format!("profile = \"luna\"\n isolation = \"none\"\n {more}"))).unwrap_err().to_string();
        assert!(told.contains("needs isolation"), "{told}");
        assert!(parse(&library(&format!("profile = \"luna\"\n {more}"))).is_ok());
    }
}

#[test]
fn where_a_library_runs_is_as_written_else_as_its_profile_has_it_else_by_its_files_name() {
    use Isolation::{None as InTheDaemon, Process};
    let softhsm = Profile::SoftHsm.traits().processes(Process);
    let cases = [
        ("/usr/lib/libsofthsm2.so", "", Some(Profile::SoftHsm), Process, softhsm),
        ("/usr/lib/libsofthsm2.so", "workers = 3", Some(Profile::SoftHsm), Process, 3),
        ("/usr/lib/libsofthsm2.so", "isolation = \"none\"", Some(Profile::SoftHsm), InTheDaemon, 1),
        ("/usr/lib/libsofthsm2.so", "profile = \"generic\"", Some(Profile::Generic), InTheDaemon, 1),
        ("/usr/lib/libsofthsm2.so", "profile = \"luna\"", Some(Profile::Luna), Process, 1),
        ("/l/libCryptoki2_64.so", "", Some(Profile::Luna), Process, 1),
        ("/l/libCryptoki2_64.so", "workers = 2", Some(Profile::Luna), Process, 2),
        ("/l/libkryoptic_pkcs11.so", "", Some(Profile::Kryoptic), InTheDaemon, 1),
        ("/l/libkryoptic_pkcs11.so", "isolation = \"process\"", Some(Profile::Kryoptic), Process, 1),
        // Only `CK_INFO` will tell.
        ("/l/other.so", "", None, InTheDaemon, 1),
        ("/l/other.so", "isolation = \"process\"", None, Process, 1),
        ("/l/other.so", "profile = \"softhsm\"", Some(Profile::SoftHsm), Process, softhsm),
    ];
    for (path, more, profile, isolation, workers) in cases {
        let stanza = format!("kms_library \"pkcs11\" {{\n name = \"hsm\"\n library = \"{path}\"\n {more}\n}}");
        let config = parse(&format!("{LEAST}{stanza}")).unwrap();
        let library = &config.kms_libraries[0];
        assert_eq!((library.profile, library.isolation, library.workers), (profile, isolation, workers), "{stanza}");
    }
}

const HSM_SEAL: &str = r#"
    listener "unix" { address = "/run/k.sock" }
    storage "redb" { path = "/var/k.redb" }
    kms_library "pkcs11" {
      name    = "hsm"
      library = "/opt/hsm.so"
      pin     = "1234"
    }
"#;

#[test]
fn a_seal_in_an_hsm_takes_its_library_by_name_or_path_and_may_follow_another() {
    let of = |seals: &str| parse(&format!("{HSM_SEAL}{seals}")).unwrap();
    let config = of("seal \"pkcs11\" {\n library = \"HSM\"\n slot = 3\n key_label = \"k\"\n}\n");
    let Seal::Pkcs11(seal) = &config.seal else { panic!("{:?}", config.seal) };
    assert_eq!((seal.library.name.as_str(), seal.pin.expose()), ("hsm", &b"1234"[..]));
    assert!(seal.token == TokenSelector::Slot(3) && !seal.generate_key && config.former_seal.is_none());
    let config = of(
        "seal \"pkcs11\" {\n library = \"/opt/other.so\"\n token_label = \"t\"\n pin = \"9\"\n key_label = \"k\"\n \
         generate_key = true\n}\nseal \"file\" {\n path = \"/var/seal.key\"\n disabled = true\n}\n",
    );
    let Seal::Pkcs11(seal) = &config.seal else { panic!("{:?}", config.seal) };
    assert_eq!((seal.library.library.as_path(), seal.pin.expose()), (Path::new("/opt/other.so"), &b"9"[..]));
    assert_eq!(config.former_seal, Some(Seal::File { path: "/var/seal.key".into() }));
    assert!(config.warnings.iter().any(|warning| warning.contains("a PIN of seal")), "{:?}", config.warnings);
}

#[test]
fn a_seal_that_is_not_whole_is_refused_with_its_place() {
    for (seals, told) in [
        ("", "seal \"file\""),
        ("seal \"x\" {}", "expected seal \"file\" { … } or seal \"pkcs11\" { … }"),
        ("seal \"pkcs11\" {\n library = \"no\"\n slot = 1\n key_label = \"k\"\n}", "there is no kms_library \"no\""),
        ("seal \"pkcs11\" {\n library = \"/a.so\"\n slot = 1\n key_label = \"k\"\n}", "needs a pin"),
        ("seal \"pkcs11\" {\n library = \"hsm\"\n key_label = \"k\"\n}", "exactly one of token_label"),
        ("seal \"pkcs11\" {\n library = \"hsm\"\n slot = 1\n}", "needs the field \"key_label\""),
        ("seal \"file\" {\n path = \"/a\"\n}\nseal \"file\" {\n path = \"/b\"\n}", "seal is set already"),
        ("seal \"file\" {\n path = \"/a\"\n disabled = true\n}", "expected a stanza such as seal"),
        ("seal \"file\" {\n path = \"/a\"\n disabled = \"yes\"\n}", "expected true or false"),
    ] {
        let problems = parse(&format!("{HSM_SEAL}{seals}\n")).unwrap_err().to_string();
        assert!(problems.contains(told), "{seals}: {problems}");
    }
}

#[test]
fn a_clouds_service_is_there_without_its_stanza_and_bound_by_it() {
    let service = |text: &str| {
        let config = parse(text)?;
        let aws = config.kms_services.into_iter().find(|service| service.service == CloudService::AwsKms);
        Ok::<KmsService, Problems>(aws.unwrap())
    };
    let (root, team) = (Namespace::root(), Namespace::from_path("team"));
    let given = service(LEAST).unwrap();
    assert!(given.namespaces.allow(&team) && given.lends_credentials_to(&root) && given.lets_name_endpoints(&root));
    assert!(!given.lends_credentials_to(&team) && !given.lets_name_endpoints(&team));
    let stanza = |body: &str| format!("{LEAST}\nkms_service \"awskms\" {{\n{body}\n}}");
    let given = service(&stanza(
        "namespaces = [\"team\"]\n own_credentials = [\"team\"]\n endpoints = [\"*\"]\n call = \"500ms\"\n max_sessions = 8\n \
         warm_connections = 0\n warm_interval = \"20s\"\n \
         verify_after_sign = \"always\"\n quota \"rsa\" {\n per_second = 50\n max_in_flight = 4\n }\n",
    ))
    .unwrap();
    assert!(!given.namespaces.allow(&root) && given.lends_credentials_to(&team) && given.lets_name_endpoints(&team));
    assert_eq!((given.call, given.max_sessions), (Duration::from_millis(500), 8));
    assert_eq!((given.warm_connections, given.warm_interval), (0, Duration::from_secs(20)));
    let quota = ServiceQuota { per_second: Some(50), burst: None, max_in_flight: Some(4) };
    assert_eq!(given.quotas.get("rsa"), Some(&quota));
    for (body, expected) in [
        ("call = \"20s\"", "call"),
        ("warm_connections = 65", "expected a whole number from 0 to 64"),
        ("warm_interval = \"5m\"", "expected a duration from 100ms to 240s"),
        ("ca_file = \"/not/there.pem\"", "ca_file /not/there.pem: No such file"),
        ("quota \"dsa\" {\n per_second = 1\n}", "expected quota \"FAMILY\" { … } with one of rsa, ecc"),
        ("quota \"rsa\" {\n per_hour = 1\n}", "unknown field \"per_hour\""),
        ("own_credentials = \"team\"", "expected a list of namespaces"),
    ] {
        let told = service(&stanza(body)).unwrap_err().to_string();
        assert!(told.contains(expected), "{body}: {told}");
    }
    let told = parse(&format!("{LEAST}\nkms_service \"gcp\" {{}}")).unwrap_err().to_string();
    assert!(told.contains("kms_service \"awskms\" { … }"), "{told}");
    let library = "kms_library \"pkcs11\" {\n name = \"AWSkms\"\n library = \"/x.so\"\n}";
    let told = parse(&format!("{LEAST}\n{library}")).unwrap_err().to_string();
    assert!(told.contains("which is the name of AWS KMS"), "{told}");
}
