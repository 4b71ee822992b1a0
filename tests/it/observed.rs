//! What is seen from outside: each metric that a dashboard or an alert names exists with its labels, each metric there is
//! has its panel, and a real daemon's exposition is what the list says.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyway::model::Verb;
use keyway::telemetry::{METRICS, MetricInfo, MetricKind};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Setup, scrape, wait_for};
use crate::token::Token;

/// Labels that Prometheus adds to every metric.
const ADDED: [&str; 2] = ["job", "instance"];

fn dashboards() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// The files of `dashboards/` with this ending: their names and texts.
fn files(ending: &str) -> Vec<(String, String)> {
    let paths = std::fs::read_dir(dashboards()).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), text)
    };
    let found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|known| known == ending)).map(named).collect();
    assert!(!found.is_empty(), "no .{ending} in dashboards/");
    found
}

fn json_files() -> Vec<(String, Value)> {
    let parse = |(name, text): (String, String)| {
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("dashboards/{name}: {error}"));
        (name, value)
    };
    files("json").into_iter().map(parse).collect()
}

/// Every text below `value` under one of these keys.
fn texts<'a>(value: &'a Value, keys: &[&str], found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, below) in fields {
                match below {
                    Value::String(text) if keys.contains(&key.as_str()) => found.push(text),
                    below => texts(below, keys, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, keys, found)),
        _ => {}
    }
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The metric a series belongs to, which for a histogram's is not its own name.
fn metric(series: &str) -> Option<&'static MetricInfo> {
    let parts = ["_bucket", "_sum", "_count"];
    METRICS.iter().find(|known| match known.kind {
        MetricKind::Histogram => parts.iter().any(|part| series.strip_suffix(part) == Some(known.name)),
        _ => series == known.name,
    })
}

/// Labels that the series of a metric carry.
fn labels(of: &MetricInfo) -> impl Iterator<Item = &'static str> + use<> {
    let le = (of.kind == MetricKind::Histogram).then_some("le");
    of.labels.iter().copied().chain(ADDED).chain(le)
}

/// The names of the labels in the inside of braces: `a="b",c!~"d"`.
fn matched(selector: &str) -> Vec<&str> {
    let outside = selector.split('"').step_by(2);
    let names = outside.flat_map(|part| part.split(|letter| !is_word(letter)));
    names.filter(|name| !name.is_empty()).collect()
}

/// The series an expression names, each with the labels it selects by.
fn series(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("keyway_") {
        let rest = &expression[at..];
        let (name, after) = rest.split_at(rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()));
        let selector = after.strip_prefix('{').and_then(|inside| inside.split('}').next()).unwrap_or_default();
        found.push((name, matched(selector)));
    }
    found
}

/// The labels an expression groups by, and those a text is made of: `by (a, b)`, `{{a}}`, `{{ $labels.a }}`.
fn used_labels(text: &str) -> Vec<&str> {
    let inside = |open: &'static str, close| {
        text.match_indices(open).map(move |(at, _)| text[at + open.len()..].split(close).next().unwrap_or_default())
    };
    let groups = ["by (", "on (", "ignoring ("].into_iter().flat_map(|open| inside(open, ')'));
    let legends = inside("{{", '}').map(|name| name.trim()).filter(|name| !name.contains('$'));
    let named = groups.chain(legends).flat_map(|list| list.split(", "));
    let templates = text.match_indices("$labels.").map(|(at, open)| {
        let rest = &text[at + open.len()..];
        &rest[..rest.find(|letter| !is_word(letter)).unwrap_or(rest.len())]
    });
    named.chain(templates).collect()
}

/// What is wrong with a piece of a dashboard or of rules: metrics that there are not, and labels they do not have.
fn wrong(place: &str, piece: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut known: BTreeSet<&str> = ADDED.into_iter().collect();
    for (name, selected) in series(piece) {
        let Some(info) = metric(name) else {
            wrong.push(format!("{place}: there is no metric {name}"));
            continue;
        };
        known.extend(labels(info));
        let strange = selected.into_iter().filter(|label| labels(info).all(|has| has != *label));
        wrong.extend(strange.map(|label| format!("{place}: {name} has no label {label:?}")));
    }
    let strange = used_labels(piece).into_iter().filter(|label| !known.contains(label));
    wrong.extend(strange.map(|label| format!("{place}: no metric here has a label {label:?}: {piece}")));
    wrong
}

/// The panels of a dashboard.
fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().unwrap()
}

#[test]
fn what_dashboards_and_alerts_name_exists() {
    let mut found = Vec::new();
    for (name, dashboard) in json_files() {
        for panel in panels(&dashboard) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let piece = [&target["expr"], &target["legendFormat"]].map(|text| text.as_str().unwrap());
                found.extend(wrong(&format!("{name}, {}", panel["title"]), &piece.join(" ")));
            }
        }
        let mut variables = Vec::new();
        texts(&dashboard["templating"], &["definition", "query"], &mut variables);
        texts(&dashboard["annotations"], &["expr"], &mut variables);
        variables.iter().for_each(|text| found.extend(wrong(&name, text)));
    }
    for (name, text) in files("yml") {
        let rules = if name.ends_with("_test.yml") { text.split("- series:") } else { text.split("- alert:") };
        // Before the first rule there is only what concerns all.
        for rule in rules.skip(1) {
            let comment_free: Vec<&str> = rule.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
            let piece = comment_free.join(" ");
            // Descriptions name metrics to look at, whose labels are not those of the alert.
            let (alert, advice) = piece.split_once("description:").unwrap_or((&piece, ""));
            let title = rule.split_whitespace().next().unwrap();
            if name.ends_with("_test.yml") {
                let series = piece.split('\'').nth(1).unwrap();
                found.extend(wrong(&format!("{name}, {title}"), series));
            } else {
                found.extend(wrong(&format!("{name}, {title}"), alert));
                let unknown = series(advice).into_iter().filter(|(name, _)| METRICS.iter().all(|m| m.name != *name));
                found.extend(unknown.map(|(metric, _)| format!("{name}, {title}: there is no metric {metric}")));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_metric_has_its_panel() {
    let dashboards = json_files();
    let mut expressions = Vec::new();
    dashboards.iter().for_each(|(_, dashboard)| texts(&dashboard["panels"], &["expr"], &mut expressions));
    let shown: BTreeSet<&str> =
        expressions.iter().flat_map(|text| series(text)).filter_map(|(name, _)| Some(metric(name)?.name)).collect();
    let missing: Vec<&str> = METRICS.iter().map(|info| info.name).filter(|name| !shown.contains(name)).collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn a_dashboard_can_be_loaded_beside_others() {
    let mut identities = BTreeSet::new();
    for (name, dashboard) in json_files() {
        assert!(identities.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name}: its uid is another's");
        assert!(dashboard["id"].is_null() && dashboard["schemaVersion"].as_u64().unwrap() >= 38, "{name}");
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}, {title}: its id is another panel's");
            if panel["type"] != "row" {
                assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}, {title}");
                assert!(
                    panel["description"].as_str().is_some_and(|text| !text.is_empty()),
                    "{name}, {title}: no description"
                );
            }
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24, "{name}, {title}: beyond the edge");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(places.insert(cell), "{name}, {title}: lies on another panel");
            }
        }
    }
}

#[test]
fn every_alert_is_tested_and_says_what_to_do() {
    let rules = files("yml").into_iter().find(|(name, _)| name == "alerts.yml").unwrap().1;
    let tests = files("yml").into_iter().find(|(name, _)| name == "alerts_test.yml").unwrap().1;
    for rule in rules.split("- alert:").skip(1) {
        let name = rule.split_whitespace().next().unwrap();
        for part in ["expr:", "labels: {severity: ", "summary:", "description:"] {
            assert!(rule.contains(part), "{name} has no {part}");
        }
        let of_it = format!("alertname=\"{name}\"");
        let mut outcomes = tests.split("- expr:").filter(|check| check.contains(&of_it));
        let (quiet, fires): (Vec<&str>, Vec<&str>) =
            outcomes.by_ref().partition(|check| check.contains("exp_samples: []"));
        assert!(
            !quiet.is_empty() && !fires.is_empty(),
            "{name}: no test in which it fires, or none in which it does not"
        );
    }
}

/// Prometheus' own tool, where tests/run has fetched it.
fn promtool() -> Option<PathBuf> {
    std::env::var_os("KEYWAY_TEST_PROMTOOL").map(PathBuf::from)
}

fn run(promtool: &Path, arguments: &[&str], input: &str) {
    let mut command = Command::new(promtool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "promtool {arguments:?}: {said}");
}

/// The panels' expressions as rules, for want of another way to have Prometheus read them.
fn as_rules(dashboard: &Value) -> Value {
    let mut expressions = Vec::new();
    texts(&dashboard["panels"], &["expr"], &mut expressions);
    assert!(!expressions.is_empty());
    let rule = |(number, text): (usize, &&str)| json!({"record": format!("panel:{number}"), "expr": text.replace("$__rate_interval", "5m")});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    json!({"groups": [{"name": "panels", "rules": rules}]})
}

#[test]
fn prometheus_understands_the_rules_and_the_panels() {
    // tests/run names it always.
    let Some(promtool) = promtool() else { return eprintln!("not asked: KEYWAY_TEST_PROMTOOL names no promtool") };
    let path = |name: &str| dashboards().join(name).to_str().unwrap().to_owned();
    run(&promtool, &["check", "rules", &path("alerts.yml")], "");
    run(&promtool, &["test", "rules", &path("alerts_test.yml")], "");
    let folder = tempfile::tempdir().unwrap();
    for (name, dashboard) in json_files() {
        let file = folder.path().join(name);
        std::fs::write(&file, as_rules(&dashboard).to_string()).unwrap();
        run(&promtool, &["check", "rules", file.to_str().unwrap()], "");
    }
}

/// Each line of an exposition is of a metric of the list, and has its labels and no other.
fn check_exposition(text: &str) {
    let samples = text.lines().filter(|line| line.starts_with("keyway_"));
    let mut shown = BTreeSet::new();
    for line in samples {
        let (name, selected) = series(line).into_iter().next().unwrap();
        let info = metric(name).unwrap_or_else(|| panic!("{name} is not in the list"));
        let selected: BTreeSet<&str> = selected.into_iter().filter(|label| *label != "le").collect();
        assert_eq!(selected, info.labels.iter().copied().collect(), "{line}");
        shown.insert(info.name);
    }
    for name in ["keyway_sessions", "keyway_lane_limit", "keyway_key_holders", "keyway_tenant_device_seconds"] {
        assert!(shown.contains(name), "{name} is not shown");
    }
}

/// What a scrape says, without its head.
fn exposition(daemon: &Daemon) -> String {
    let answer = scrape(&daemon.folder.join("metrics.sock"));
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn the_exposition_of_a_daemon_at_work_is_what_the_list_says() {
    let began = "keyway_module_initialisations_total{library=\"hsm\",result=\"ok\"} 1";
    its_exposition_is_what_the_list_says("isolation = \"none\"", &["0"], began).await;
    let began = "keyway_worker_starts_total{library=\"hsm\",result=\"ok\",token=\"keyway-test\"} 2";
    its_exposition_is_what_the_list_says("isolation = \"process\"\n workers = 2", &["1", "2"], began).await;
}

/// `workers`: the labels of those that serve. `began`: how often its library or its workers did.
async fn its_exposition_is_what_the_list_says(stanza: &'static str, workers: &[&str], began: &str) {
    let token = Token::new();
    let daemon = Daemon::with(&token, Setup { stanza, ..Setup::default() }).await;
    let processes = workers.len();
    daemon.certificate_authority().await;
    daemon.transit_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.managed_key("gone", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.write("sys/managed-keys/pkcs11/gone/test/sign", json!({})).await;
    daemon.write("transit/sign/doc", json!({"input": STANDARD.encode("x")})).await;
    let key = |figure: &str, name: &str| {
        format!("keyway_key_{figure}{{pool=\"hsm/keyway-test\",namespace=\"root\",key=\"{name}\"}} {processes}\n")
    };
    for name in ["doc", "gone"] {
        for figure in ["members", "holders"] {
            wait_for(&key(figure, name), || exposition(&daemon).contains(&key(figure, name)).then_some(()));
        }
    }
    let text = exposition(&daemon);
    check_exposition(&text);
    let login = |worker: &&str| {
        let member = format!("pool=\"hsm/keyway-test\",library=\"hsm\",token=\"keyway-test\",worker=\"{worker}\"");
        format!("keyway_logins_total{{{member},cause=\"start\",result=\"ok\"}} 1\n")
    };
    for line in workers.iter().map(login).chain([format!("{began}\n")]) {
        assert!(text.contains(&line), "{line} is missing from\n{text}");
    }
    // A key that is deleted is no alarm.
    assert!(daemon.ask(Verb::Delete, "sys/managed-keys/pkcs11/gone", json!({})).await.status < 300);
    wait_for("the key's leaving", || (!exposition(&daemon).contains("key=\"gone\"")).then_some(()));
    if let Some(promtool) = promtool() {
        run(&promtool, &["check", "metrics"], &exposition(&daemon));
    }
}

#[tokio::test]
async fn a_refused_pin_and_the_starts_of_workers_are_counted() {
    let token = Token::new();
    let stanza = "isolation = \"process\"\n workers = 1";
    let daemon = Daemon::with(&token, Setup { pin: "0000", stanza, ..Setup::default() }).await;
    daemon.managed_key("doc", json!({"mechanism": "0x1041", "curve": "P256"})).await;
    daemon.refused("sys/managed-keys/pkcs11/doc/test/sign", json!({})).await;
    let member = "pool=\"hsm/keyway-test\",library=\"hsm\",token=\"keyway-test\",worker=\"1\"";
    let text = exposition(&daemon);
    for line in [
        format!("keyway_logins_total{{{member},cause=\"start\",result=\"refused\"}} 1"),
        format!("keyway_member_state{{{member},state=\"refused\"}} 1"),
        format!("keyway_member_refused{{{member},reason=\"pin\"}} 1"),
        format!("keyway_member_refused{{{member},reason=\"wrong_signature\"}} 0"),
        format!("keyway_member_bring_ups_total{{{member},cause=\"start\",result=\"failed\"}} 1"),
        "keyway_worker_starts_total{library=\"hsm\",result=\"ok\",token=\"keyway-test\"} 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is missing from\n{text}");
    }
}
