//! Files for a web server: CA certificates and CRLs below the folder the configuration names, if it names one.
//!
//! A failure is logged and stops nothing: what is published is stored already and served on the socket.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Pki;
use super::crl::off_worker;
use super::issuer::Issuer;
use crate::engine::Call;
use crate::model::{Fault, Mount, Namespace};

/// Anyone may read what is published, whatever the daemon's umask is.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

impl Pki {
    /// Writes the certificates and CRLs of every issuer.
    pub(super) async fn publish_all(&self, call: &Call) {
        let authority = self.authority.load_full();
        for issuer in authority.issuers.values() {
            self.publish_certificate(call, issuer).await;
            self.publish_crl(call, issuer).await;
        }
    }

    /// Writes those of the default issuer, which may have become it now.
    pub(super) async fn publish_default(&self, call: &Call) {
        if let Some(issuer) = self.authority.load_full().default_issuer() {
            self.publish_certificate(call, issuer).await;
            self.publish_crl(call, issuer).await;
        }
    }

    /// Writes `ca.der` and `ca.pem` of an issuer.
    pub(super) async fn publish_certificate(&self, call: &Call, issuer: &Issuer) {
        let pem = format!("{}\n", issuer.certificate.pem);
        let files = [("ca.der", issuer.certificate.x509.der.clone()), ("ca.pem", pem.into())];
        self.publish(call, issuer, files).await;
    }

    /// Writes `crl.der`, `crl.pem` and, where there are delta CRLs, `delta-crl.der` and `delta-crl.pem` of an issuer.
    pub(super) async fn publish_crl(&self, call: &Call, issuer: &Issuer) {
        let Some(root) = &self.publish_dir else { return };
        let own = self.crls.of(issuer.signer());
        let crls = [
            (own.crl.load_full(), ["crl.der", "crl.pem"]),
            (own.delta.load_full(), ["delta-crl.der", "delta-crl.pem"]),
        ];
        for (crl, [der_name, pem_name]) in crls {
            let Some(crl) = crl else { continue };
            let pem = match crl.pem().await {
                Ok(pem) => [&pem[..], b"\n"].concat(),
                Err(fault) => return self.publishing_failed(call, &root.display().to_string(), &fault),
            };
            self.publish(call, issuer, [(der_name, crl.der.clone()), (pem_name, pem.into())]).await;
        }
    }

    /// Those of the default issuer lie in the mount's folder, and those of each in one of its own below it.
    async fn publish(&self, call: &Call, issuer: &Issuer, files: [(&'static str, Bytes); 2]) {
        let Some(root) = &self.publish_dir else { return };
        let of_mount = folder(root, &call.mount);
        if self.authority.load().default_issuer().is_some_and(|default| default.id() == issuer.id()) {
            self.publish_in(call, of_mount.clone(), files.clone()).await;
        }
        self.publish_in(call, of_mount.join("issuer").join(harmless(issuer.id())), files).await;
    }

    async fn publish_in(&self, call: &Call, folder: PathBuf, files: [(&'static str, Bytes); 2]) {
        let shown = folder.display().to_string();
        // It waits for the disk.
        let outcome = off_worker(true, move || {
            files.into_iter().try_for_each(|(name, bytes)| {
                replace(&folder, name, &bytes).map_err(|error| Fault::Unavailable { what: format!("{name}: {error}") })
            })
        });
        if let Err(fault) = outcome.await {
            self.publishing_failed(call, &shown, &fault);
        }
    }

    fn publishing_failed(&self, call: &Call, folder: &str, fault: &Fault) {
        self.publish_due.store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::error!(
            folder, mount = %call.mount.path, namespace = %call.mount.namespace, %fault,
            "cannot publish: check publish_dir, its permissions and its free space; it is tried again within a minute"
        );
    }
}

/// Removes what was published of a namespace that is gone. It is no other's: no mount lies where a namespace is.
pub fn unpublish(root: &Path, namespace: &Namespace) -> std::io::Result<()> {
    if namespace.is_root() {
        return Ok(());
    }
    match std::fs::remove_dir_all(below(root, namespace.as_str())) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// `<root>/<namespace or "root">/<mount path>`, each part made harmless.
fn folder(root: &Path, mount: &Mount) -> PathBuf {
    let namespace = if mount.namespace.is_root() { "root" } else { mount.namespace.as_str() };
    below(&below(root, namespace), &mount.path)
}

fn below(root: &Path, path: &str) -> PathBuf {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.fold(root.to_owned(), |folder, part| folder.join(harmless(part)))
}

/// The part with everything but letters, digits, `_`, `-` and inner `.` written as `%XX`.
fn harmless(part: &str) -> String {
    let keep = |index: usize, byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && index > 0)
    };
    part.bytes()
        .enumerate()
        .map(|(index, byte)| if keep(index, byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Replaces a file as a whole: a reader sees the old one or the new one, also after a crash.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    make(folder)?;
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(FILE_MODE))?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name))?;
    std::fs::File::open(folder)?.sync_all()
}

/// Makes a folder, and those above it, as far as they are not there. Those that are there stay as their owner has them.
fn make(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    // The folder above that of a path without any is the one the daemon runs in.
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        make(above)?;
    }
    match std::fs::create_dir(folder) {
        Ok(()) => std::fs::set_permissions(folder, std::fs::Permissions::from_mode(FOLDER_MODE)),
        // Another mount was first.
        Err(_) if folder.is_dir() => Ok(()),
        failed => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MountConfig;

    fn mount(namespace: &str, path: &str) -> Mount {
        Mount {
            namespace: Namespace::from_path(namespace),
            path: path.into(),
            engine: "pki".into(),
            uuid: "u".into(),
            accessor: "a".into(),
            description: String::new(),
            options: Default::default(),
            config: MountConfig::default(),
        }
    }

    #[test]
    fn each_mount_has_a_folder_below_the_root() {
        let root = Path::new("/pub");
        assert_eq!(folder(root, &mount("", "pki/")), Path::new("/pub/root/pki"));
        assert_eq!(folder(root, &mount("team/ci", "ca/web/")), Path::new("/pub/team/ci/ca/web"));
        // One path in two namespaces is two folders. (No mount can be where a namespace is: `team` has none at `ci/`.)
        assert_ne!(folder(root, &mount("team-a", "pki/")), folder(root, &mount("team-b", "pki/")));
        assert_eq!(folder(root, &mount("..", "../.ssh/a b/")), Path::new("/pub/%2E./%2E./%2Essh/a%20b"));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        replace(&folder, "crl.der", b"one").unwrap();
        replace(&folder, "crl.der", b"two").unwrap();
        assert_eq!(std::fs::read(folder.join("crl.der")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let mode = std::fs::metadata(folder.join("crl.der")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, FOLDER_MODE);
    }
}
