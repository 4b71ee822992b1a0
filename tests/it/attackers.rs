//! A tenant who may do everything in its own namespace, and strangers, against another tenant's: raw bytes on the socket, in
//! thousands of spellings. Whatever is asked, what there is and what there is not are answered alike, and nothing is changed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::client::{Framed, Identity};
use keyway::model::{Secret, Verb};
use keyway::wire::proto;
use serde_json::{Value, json};

use crate::daemon::{Daemon, LIMIT};
use crate::tenants::{ask, documents, managed_key, write};
use crate::token::Token;

/// What every secret of the victim's has in it.
const MARK: &str = "nobodys-business";
/// The victim's namespace, and one that is not there.
const VICTIM: [&str; 2] = ["two", "owt"];
/// Things of the victim's, each beside one that is not there.
const THINGS: [[&str; 2]; 14] = [
    ["transit/keys/doc", "transit/keys/dac"],
    ["transit/sign/doc", "transit/sign/dac"],
    ["transit/export/public-key/doc", "transit/export/public-key/dac"],
    ["tronsit/keys/doc", "trunsit/keys/doc"],
    ["pki/roles/web", "pki/roles/wab"],
    ["pki/issue/web", "pki/issue/wab"],
    ["pki/config/crl", "pko/config/crl"],
    ["sys/policies/acl/secret", "sys/policies/acl/sacred"],
    ["sys/managed-keys/pkcs11/doc", "sys/managed-keys/pkcs11/dac"],
    ["sys/mounts/pki", "sys/mounts/pko"],
    ["sys/mounts/pki/tune", "sys/mounts/pko/tune"],
    ["sys/internal/ui/mounts/pki", "sys/internal/ui/mounts/pko"],
    ["sys/namespaces/deep", "sys/namespaces/dept"],
    ["auth/token/roles/maker", "auth/token/roles/taker"],
];
/// What is the same for all that is there, asked with no thing in mind.
const PLACES: [&str; 9] = [
    "sys/health",
    "sys/mounts",
    "sys/policies/acl",
    "sys/keyway/status",
    "sys/internal/ui/mounts",
    "sys/seal-status",
    "sys/namespaces",
    "auth/token/accessors",
    "sys/leases/lookup/pki/issue/web",
];
/// How a header may name a namespace: `{ns}` stands for the victim's.
const HEADERS: [&str; 22] = [
    "X-Vault-Namespace: one\r\n",
    "",
    "X-Vault-Namespace: {ns}\r\n",
    "X-Vault-Namespace: /{ns}/\r\n",
    "X-Vault-Namespace: //{ns}//\r\n",
    "X-Vault-Namespace: root\r\n",
    "X-Vault-Namespace: root/{ns}\r\n",
    "X-Vault-Namespace: one/{ns}\r\n",
    "X-Vault-Namespace: one/../{ns}\r\n",
    "X-Vault-Namespace: ../{ns}\r\n",
    "X-Vault-Namespace: ./{ns}\r\n",
    "X-Vault-Namespace: {ns}/.\r\n",
    "X-Vault-Namespace: one%2f..%2f{ns}\r\n",
    "X-Vault-Namespace: %2e%2e/{ns}\r\n",
    "X-Vault-Namespace: {ns}%00\r\n",
    "X-Vault-Namespace: {ns}/deep/..\r\n",
    "X-Vault-Namespace: {ns},one\r\n",
    "X-Vault-Namespace: \t {ns} \r\n",
    "X-Vault-Namespace: one\r\nX-Vault-Namespace: {ns}\r\n",
    "X-Vault-Namespace: {ns}\r\nX-Vault-Namespace: one\r\n",
    "x-VAULT-namespace: {ns}\r\n",
    "X-Vault-Namespace: one\x01{ns}\r\n",
];
/// How a target may lead to a thing, `{it}`.
const TARGETS: [&str; 38] = [
    "/v1/{it}",
    "/v1/{ns}/{it}",
    "/v1/{ns}/{it}/",
    "/v1/{ns}//{it}",
    "/v1//{ns}/{it}",
    "//v1/{ns}/{it}",
    "/v1/one/{ns}/{it}",
    "/v1/one/../{ns}/{it}",
    "/v1/../{ns}/{it}",
    "/v1/../../{ns}/{it}",
    "/v1/./{ns}/{it}",
    "/v1/{ns}/./{it}",
    "/v1/{ns}/deep/../{it}",
    "/v1/%2e%2e/{ns}/{it}",
    "/v1/.%2e/{ns}/{it}",
    "/v1/..%2f{ns}/{it}",
    "/v1/..%5c{ns}/{it}",
    "/v1/..%252f{ns}/{it}",
    "/v1/one%2f..%2f{ns}%2f{it}",
    "/v1/{ns}%2f{it}",
    "/v1/{ns}%252f{it}",
    "/v1/{ns}%00/{it}",
    "/v1/{ns}./{it}",
    "/v1/{ns};a=b/{it}",
    "/v1/{ns}%20/{it}",
    "/v1/%20{ns}/{it}",
    "/v1/{ns}%c0%af/{it}",
    "/v1/%ef%bc%8e%ef%bc%8e/{ns}/{it}",
    "/v1/{ns}/{it}?list=true",
    "/v1/{it}?namespace={ns}",
    "/v1/{ns}/{it}#fragment",
    "/v1/{ns}/{it}.",
    "/v1/{ns}/{it}%2f",
    "/v1/sys/../{ns}/{it}",
    "/v1/{ns}/ocsp/M/{it}",
    "/v1/ocsp/M/{ns}//{it}",
    "http://keyway/v1/{ns}/{it}",
    "http://one/../v1/{ns}/{it}",
];
const VERBS: [&str; 5] = ["GET", "LIST", "POST", "DELETE", "PUT"];

/// A connection that is made again whenever the daemon has had enough of it.
struct Raw<'d> {
    daemon: &'d Daemon,
    stream: Option<UnixStream>,
}

impl<'d> Raw<'d> {
    fn new(daemon: &'d Daemon) -> Raw<'d> {
        Raw { daemon, stream: None }
    }

    /// The status and the body of the answer, without what is another one each time.
    fn ask(&mut self, verb: &str, target: &str, headers: &str, token: &str, body: &Value) -> (u16, String) {
        let body = if verb == "POST" || verb == "PUT" { body.to_string() } else { String::new() };
        let token = if token.is_empty() { String::new() } else { format!("X-Vault-Token: {token}\r\n") };
        let length = body.len();
        let request =
            format!("{verb} {target} HTTP/1.1\r\nHost: k\r\n{headers}{token}Content-Length: {length}\r\n\r\n{body}");
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let stream = UnixStream::connect(self.daemon.socket()).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream
        });
        stream.write_all(request.as_bytes()).unwrap();
        let (head, body) = answer(&mut stream);
        if !head.contains("connection: close") {
            self.stream = Some(stream);
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        let mut told: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        if let Some(envelope) = told.as_object_mut() {
            envelope.remove("request_id");
            envelope.remove("server_time_utc");
        }
        if let Some(data) = told.get_mut("data").and_then(Value::as_object_mut) {
            data.remove("uptime_seconds");
        }
        (status, told.to_string())
    }
}

/// The head of an answer, in small letters, and its body.
fn answer(stream: &mut UnixStream) -> (String, String) {
    let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
    let ends = |bytes: &[u8]| bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
    let mut head = String::new();
    loop {
        if head.is_empty()
            && let Some(end) = ends(&bytes)
        {
            head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            bytes.drain(..end);
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        if !head.is_empty() && bytes.len() >= length.unwrap_or(0) {
            return (head, String::from_utf8_lossy(&bytes).into_owned());
        }
        let read = stream.read(&mut some).unwrap();
        assert!(read > 0, "the connection ended within {head:?} {bytes:?}");
        bytes.extend_from_slice(&some[..read]);
    }
}

/// The attacker's token, which may do everything in its namespace, beside a victim who has one of everything.
struct Street {
    daemon: Daemon,
    attacker: String,
    /// What names things of the victim's: in each, the one there is and one there is not.
    names: Vec<(&'static str, [Value; 2])>,
    victim: String,
    lease: Value,
}

const EVERYTHING: &str =
    "path \"*\" {\n  capabilities = [\"create\", \"read\", \"update\", \"patch\", \"delete\", \"list\", \"sudo\"]\n}\n";
/// Things that the attacker could have, too, under the same names: it only looks for them, so that what it is told of them
/// does not depend on what it did before.
const LOOKED_FOR: [&str; 5] =
    ["sys/mounts/*", "sys/policies/acl/*", "sys/managed-keys/*", "sys/namespaces/*", "auth/token/roles/*"];

/// Writes the policy `all`, and makes a token with it; answers that and its accessor.
async fn token_of(daemon: &Daemon, namespace: &str, policy: String, note: &str) -> (String, String) {
    write(daemon, namespace, "sys/policies/acl/all", json!({"policy": policy})).await;
    let data = json!({"policies": ["all"], "meta": {"note": note}, "display_name": note});
    let made = ask(daemon, namespace, Verb::Write, "auth/token/create", data).await.json();
    let text = |name: &str| made["auth"][name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    (text("client_token"), text("accessor"))
}

impl Street {
    async fn new(token: &Token) -> Street {
        let daemon = Daemon::new(token).await;
        write(&daemon, "", "sys/namespaces/one", json!({})).await;
        write(&daemon, "", "sys/namespaces/two", json!({"custom_metadata": {"note": MARK}})).await;
        let looked_for = |path| format!("path \"{path}\" {{\n  capabilities = [\"read\", \"list\", \"sudo\"]\n}}\n");
        let policy = EVERYTHING.to_owned() + &LOOKED_FOR.map(looked_for).concat();
        let (attacker, _) = token_of(&daemon, "one", policy, "").await;
        write(&daemon, "one", "sys/mounts/own", json!({"type": "transit"})).await;
        let (victim, accessor) = token_of(&daemon, "two", format!("# {MARK}\n{EVERYTHING}"), MARK).await;
        write(&daemon, "two", "sys/policies/acl/secret", json!({"policy": format!("# {MARK}")})).await;
        write(&daemon, "two", "sys/namespaces/deep", json!({"custom_metadata": {"note": MARK}})).await;
        documents(&daemon, "two", "doc-two").await;
        write(&daemon, "two", "sys/mounts/tronsit", json!({"type": "transit", "description": MARK})).await;
        write(&daemon, "two", "tronsit/keys/doc", json!({"type": "managed_key", "managed_key_name": "doc"})).await;
        write(&daemon, "two", "sys/managed-keys/pkcs11/ca", managed_key("ca-two")).await;
        write(&daemon, "two", "sys/mounts/pki", json!({"type": "pki", "description": MARK})).await;
        let root = json!({"managed_key_name": "ca", "common_name": MARK, "ttl": "24h"});
        write(&daemon, "two", "pki/root/generate/kms", root).await;
        let role =
            json!({"allow_any_name": true, "generate_lease": true, "key_type": "ec", "key_bits": 256, "ou": MARK});
        write(&daemon, "two", "pki/roles/web", role).await;
        write(&daemon, "two", "auth/token/roles/maker", json!({"allowed_policies": ["all"]})).await;
        let certificate = json!({"common_name": "a.example", "ttl": "1h"});
        let issued = ask(&daemon, "two", Verb::Write, "pki/issue/web", certificate).await.json();
        let lease = issued["lease_id"].clone();
        let mut no_lease = lease.as_str().unwrap().to_owned();
        no_lease.truncate(no_lease.len() - 2);
        no_lease.push_str(":z");
        let uuid = ask(&daemon, "two", Verb::Read, "sys/managed-keys/pkcs11/doc", json!({})).await.json();
        let other = |text: &str| Value::from(text.chars().rev().collect::<String>());
        let names = vec![
            ("accessor", [Value::from(accessor.as_str()), other(&accessor)]),
            ("token", [Value::from(victim.as_str()), other(&victim)]),
            ("lease_id", [lease.clone(), no_lease.into()]),
            ("managed_key_id", [uuid["data"]["UUID"].clone(), other(uuid["data"]["UUID"].as_str().unwrap())]),
        ];
        Street { daemon, attacker, names, victim, lease }
    }

    /// Whether all that the victim had is there and works, by the victim's own token.
    async fn assert_whole(&self) {
        let mut http = self.daemon.http();
        (http.token, http.namespace) = (Some(Secret::from(self.victim.as_str())), Some("two".into()));
        http.deadline = Some(LIMIT);
        let sign = json!({"input": STANDARD.encode("x")});
        for (verb, path, data) in [
            (Verb::Write, "transit/sign/doc", sign.clone()),
            (Verb::Write, "tronsit/sign/doc", sign),
            (Verb::Write, "pki/issue/web", json!({"common_name": "b.example", "ttl": "1h"})),
            (Verb::Write, "sys/leases/lookup", json!({"lease_id": self.lease})),
            (Verb::Read, "sys/policies/acl/all", json!({})),
            (Verb::Read, "sys/namespaces/deep", json!({})),
            (Verb::Read, "auth/token/roles/maker", json!({})),
            (Verb::Read, "pki/config/crl", json!({})),
        ] {
            let answer = http.request(verb, path, data.as_object().unwrap()).await.unwrap();
            assert_eq!(answer.status, 200, "{path}: {:?}\n{}", answer.body, self.daemon.log());
        }
        let policy = http.request(Verb::Read, "sys/policies/acl/all", &Default::default()).await.unwrap().json();
        assert_eq!(policy["data"]["policy"], format!("# {MARK}\n{EVERYTHING}"), "nobody has written another");
        let mounts = http.request(Verb::Read, "sys/mounts", &Default::default()).await.unwrap().json();
        let mounts: Vec<&String> = mounts["data"].as_object().unwrap().keys().collect();
        assert_eq!(mounts, ["pki/", "transit/", "tronsit/"]);
        assert!(self.daemon.log().lines().all(|line| !line.contains("ERROR")), "{}", self.daemon.log());
    }

    /// Those who try: a tenant, somebody with a token that is none, and somebody without.
    fn attackers(&self) -> [&str; 3] {
        [&self.attacker, "hvs.wrong", ""]
    }
}

/// What was told, with the names of what there is in the place of what there is not.
fn alike(told: (u16, String), names: &[[&str; 2]]) -> (u16, String) {
    (told.0, names.iter().fold(told.1, |text, [is, is_not]| text.replace(is_not, is)))
}

#[tokio::test]
async fn no_spelling_of_a_path_or_header_leads_into_another_namespace_or_tells_of_it() {
    let token = Token::new();
    let street = Street::new(&token).await;
    let mut raw = Raw::new(&street.daemon);
    let body = json!({
        "input": STANDARD.encode("x"), "common_name": "a.example", "type": "transit", "policy": "", "description": "taken",
        "custom_metadata": {"taken": "yes"}, "path": "a", "max_lease_ttl": "1h",
    });
    let mut forms = 0;
    for (number, (header, target, [is, is_not])) in forms_of(&THINGS).enumerate() {
        // Every verb has its turn at every thing and spelling, and so has everybody who tries.
        let (verb, attacker) = (VERBS[number % VERBS.len()], street.attackers()[number % 4 % 3]);
        let mut answers = VICTIM.into_iter().flat_map(|of| [(of, *is), (of, *is_not)]).map(|(of, thing)| {
            let (header, target) = (header.replace("{ns}", of), target.replace("{ns}", of).replace("{it}", thing));
            let told = raw.ask(verb, &target, &header, attacker, &body);
            assert!(!told.1.contains(MARK), "{verb} {target} {header}: {told:?}");
            alike(told, &[VICTIM, [is, is_not], [last(is), last(is_not)], [first(is), first(is_not)]])
        });
        let known = answers.next().unwrap();
        for told in answers {
            assert_eq!(told, known, "{verb} {target} {is} {header:?} {attacker:?}");
        }
        forms += 1;
    }
    assert!(forms > 5_000, "{forms}");
    street.assert_whole().await;
}

/// Half of all ways to ask for each of `things`.
fn forms_of<T>(things: &[T]) -> impl Iterator<Item = (&'static str, &'static str, &T)> {
    let headers = HEADERS.into_iter().enumerate();
    let forms = headers
        .flat_map(|(at, header)| TARGETS.into_iter().enumerate().map(move |(to, target)| (at + to, header, target)));
    let all = forms.flat_map(move |(at, header, target)| {
        things.iter().enumerate().map(move |(of, it)| (at + of, header, target, it))
    });
    all.filter(|(at, ..)| at % 2 == 0).map(|(_, header, target, it)| (header, target, it))
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').find(|part| *part != "tune").unwrap_or(path)
}

/// The first part of a path.
fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

#[tokio::test]
async fn nobody_learns_from_public_or_common_paths_which_namespaces_there_are() {
    let token = Token::new();
    let street = Street::new(&token).await;
    let mut raw = Raw::new(&street.daemon);
    for (number, (header, target, place)) in forms_of(&PLACES).enumerate() {
        let (verb, attacker) = (["GET", "LIST"][number % 2], street.attackers()[number % 3]);
        let [known, unknown] = VICTIM.map(|of| {
            let (header, target) = (header.replace("{ns}", of), target.replace("{ns}", of).replace("{it}", place));
            let told = raw.ask(verb, &target, &header, attacker, &json!({}));
            assert!(!told.1.contains(MARK), "{verb} {target} {header}: {told:?}");
            alike(told, &[VICTIM])
        });
        assert_eq!(known, unknown, "{verb} {target} {place} {header:?} {attacker:?}");
    }
    street.assert_whole().await;
}

#[tokio::test]
async fn what_names_things_of_another_is_as_unknown_as_what_names_nothing() {
    let token = Token::new();
    let street = Street::new(&token).await;
    let mut raw = Raw::new(&street.daemon);
    let paths = [
        "auth/token/lookup",
        "auth/token/lookup-accessor",
        "auth/token/renew",
        "auth/token/renew-accessor",
        "auth/token/revoke",
        "auth/token/revoke-accessor",
        "auth/token/revoke-orphan",
        "sys/capabilities",
        "sys/wrapping/lookup",
        "sys/wrapping/unwrap",
        "sys/wrapping/rewrap",
        "sys/leases/lookup",
        "sys/leases/renew",
        "sys/leases/revoke",
        "own/keys/taken",
    ];
    for path in paths {
        for (field, [is, is_not]) in &street.names {
            for header in ["X-Vault-Namespace: one\r\n", "X-Vault-Namespace: two\r\n", ""] {
                let [known, unknown] = [is, is_not].map(|value| {
                    let body = json!({*field: value, "type": "managed_key", "paths": ["transit/keys/doc"]});
                    let told = raw.ask("POST", &format!("/v1/{path}"), header, &street.attacker, &body);
                    assert!(!told.1.contains(MARK), "{path} {field}: {told:?}");
                    let (is, is_not) = (is.as_str().unwrap(), is_not.as_str().unwrap());
                    // What is told of the attacker's own token says how long that lives yet.
                    let told = if told.0 < 300 { (told.0, String::new()) } else { told };
                    alike(told, &[[is, is_not]])
                });
                assert_eq!(known, unknown, "{path} {field} {header:?}");
            }
        }
    }
    for (verb, path) in
        [("PUT", "sys/leases/revoke/L"), ("PUT", "sys/leases/renew/L"), ("PUT", "sys/leases/revoke-prefix/pki")]
    {
        let path = format!("/v1/{}", path.replace('L', street.lease.as_str().unwrap()));
        let (status, told) = raw.ask(verb, &path, "X-Vault-Namespace: one\r\n", &street.attacker, &json!({}));
        assert!([204, 400, 404].contains(&status) && !told.contains(MARK), "{path}: {status} {told}");
    }
    street.assert_whole().await;
}

#[tokio::test]
async fn the_framed_wire_leads_nowhere_else_either() {
    let token = Token::new();
    let street = Street::new(&token).await;
    let socket = street.daemon.socket().with_extension("sock.framed");
    let connect = async |namespace: &str| {
        let identity = Identity { token: Secret::from(street.attacker.as_str()), namespace: namespace.to_owned() };
        Framed::connect(&socket, &identity, proto::Class::Interactive, Some(LIMIT)).await
    };
    for hello in ["V", "/V/", "root", "", "one/../V", "../V", "one/V/..", "V/deep", "V\u{0}", "V/.", "One"] {
        let mut told = Vec::new();
        for of in VICTIM {
            told.push(connect(&hello.replace('V', of)).await.err().map(|error| error.to_string().replace(of, "V")));
        }
        assert!(told[0].is_some() && told[0] == told[1], "{hello}: {told:?}");
    }
    let client = connect("one").await.unwrap();
    for form in [
        "V/M",
        "../V/M",
        "/V/M",
        "//V//M",
        "one/../V/M",
        "./V/M",
        "V%2fM",
        "..%2fV/M",
        "V\u{0}/M",
        "root/V/M",
        "V/deep/../M",
        "M/",
        "V/M//",
        "\u{ff0e}\u{ff0e}/V/M",
        "V\\M",
    ] {
        for mounts in [["transit", "transat"], ["tronsit", "trunsit"], ["pki", "pko"]] {
            let mut told = Vec::new();
            for (of, name) in VICTIM.into_iter().flat_map(|of| mounts.map(|name| (of, name))) {
                let mount = form.replace('V', of).replace('M', name);
                let plain = |text: String| text.replace(of, "V").replace(name, "M");
                let sign =
                    proto::Sign { mount: mount.clone(), key: "doc".into(), input: "x".into(), ..Default::default() };
                let certify = proto::SignCertificate {
                    mount: mount.clone(),
                    role: "web".into(),
                    csr: "x".into(),
                    ..Default::default()
                };
                let read = proto::Request { path: format!("{mount}/keys/doc"), ..Default::default() };
                let errors = [
                    client.sign(sign).await.map(drop).unwrap_err().to_string(),
                    client.sign_certificate(certify).await.map(drop).unwrap_err().to_string(),
                    client.request(read).await.map(drop).unwrap_err().to_string(),
                ];
                told.push(errors.map(plain));
            }
            assert!(told.iter().all(|errors| *errors == told[0]), "{form} {mounts:?}: {told:#?}");
        }
    }
    street.assert_whole().await;
}
