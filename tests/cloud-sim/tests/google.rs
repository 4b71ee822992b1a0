//! Google Cloud KMS, as Google's own client finds it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary;
use crate::client::Cloud;

#[test]
fn googles_python_client_finds_google() {
    let Some(python) = std::env::var_os("KEYWAY_TEST_PYTHON").map(PathBuf::from) else {
        eprintln!("not asked: KEYWAY_TEST_PYTHON names no python");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [account, federated] = ["account.json", "federated.json"].map(|name| folder.path().join(name));
    let (account_text, federated_text) = (account.to_str().unwrap(), federated.to_str().unwrap());
    let arguments =
        ["google", "--service-account", account_text, "--federated", federated_text, "--shortest-destruction", "0"];
    let cloud = Cloud::start(binary(), None, &arguments);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/google_story.py");
    let mut command = Command::new(python);
    command.arg(script).args([&cloud.url, &cloud.control()]).args([account, federated]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "google: well\n", "{said}");
}
