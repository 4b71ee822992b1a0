use std::sync::Barrier;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::Limits;
use crate::managed_keys::Settings;
use crate::managed_keys::record::{COLLECTION, KeyRecord};
use crate::managed_keys::software_token::{SoftwareToken, open_store};
use crate::model::{Curve, Deadline, KeyKind, MountConfig};
use crate::store::{RecordKey, Write};

const P256: KeyKind = KeyKind::Ec(Curve::P256);

fn mount(engine: &str, uuid: &str) -> Arc<Mount> {
    Arc::new(Mount {
        namespace: Namespace::root(),
        path: format!("{engine}-{uuid}/"),
        engine: engine.into(),
        uuid: uuid.into(),
        accessor: String::new(),
        description: String::new(),
        options: Default::default(),
        config: MountConfig::default(),
    })
}

/// Managed keys on a token, and the mounts that there are.
struct Desk {
    keys: ManagedKeys,
    token: SoftwareToken,
    pki: Arc<Mount>,
    transit: Arc<Mount>,
    there: Arc<Mutex<Vec<Arc<Mount>>>>,
}

impl Desk {
    fn mounts(&self) -> Mounts {
        let there = Arc::clone(&self.there);
        Arc::new(move |_| there.lock().clone())
    }

    /// A managed key for the key labelled `ca`, found by its id where `more` says so; ready for use. Answers its UUID.
    async fn key(&self, name: &str, more: Value) -> String {
        self.write(name, more).await.unwrap();
        let handle = self.keys.find(&Namespace::root(), "pkcs11", name).unwrap();
        let (handle, _) = handle.identified(Deadline::after(Duration::from_secs(30))).await.unwrap();
        handle.uuid().to_owned()
    }

    async fn write(&self, name: &str, more: Value) -> Result<Vec<String>, Fault> {
        let mut fields = json!({"library": "hsm", "token_label": "t", "key_label": "ca", "mechanism": "0x1041"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.keys.write(&Namespace::root(), "pkcs11", name, fields.as_object().unwrap()).await
    }

    /// What an engine does.
    fn bind(&self, mount: &Arc<Mount>, uuid: &str) -> Result<(), Fault> {
        let binding = self.keys.bind(mount, uuid)?;
        self.note(mount, uuid);
        binding.keep();
        Ok(())
    }

    fn note(&self, mount: &Arc<Mount>, uuid: &str) {
        self.keys.store().commit_now(vec![self.keys.note_use(mount, uuid, "key 1")]).unwrap();
    }

    fn unbind(&self, mount: &Arc<Mount>, uuid: &str) {
        self.keys.store().commit_now(vec![self.keys.drop_use(mount, uuid, "key 1")]).unwrap();
        self.keys.unbind(mount, uuid);
    }

    fn refused(&self, mount: &Arc<Mount>, uuid: &str) -> String {
        match self.keys.bind(mount, uuid).map(drop) {
            Err(Fault::InvalidRequest { reason }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The same store in another process.
    fn restarted(&self) -> Desk {
        let keys = ManagedKeys::new(self.keys.store().clone(), self.token.supervisor(), &Limits::default());
        keys.load(&[Namespace::root()], self.mounts()).unwrap();
        let (token, pki, transit) = (self.token.clone(), Arc::clone(&self.pki), Arc::clone(&self.transit));
        Desk { keys, token, pki, transit, there: Arc::clone(&self.there) }
    }
}

fn story<F: Future<Output = ()>>(run: impl FnOnce(Desk) -> F) {
    actix::System::new().block_on(async {
        let token = SoftwareToken::default();
        token.make("ca", b"\x07", P256);
        let keys = ManagedKeys::new(open_store(), token.supervisor(), &Limits::default());
        let (pki, transit) = (mount("pki", "1"), mount("transit", "2"));
        let there = Arc::new(Mutex::new(vec![Arc::clone(&pki), Arc::clone(&transit)]));
        let desk = Desk { keys, token, pki, transit, there };
        desk.keys.load(&[Namespace::root()], desk.mounts()).unwrap();
        run(desk).await;
    });
}

#[test]
fn a_key_serves_engines_of_one_type() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        desk.bind(&desk.pki, &ca).unwrap();
        let text = "managed key \"ca\" cannot be used by transit mount \"transit-2/\": its key is bound to type pki (by mount \
                    \"pki-1/\"), so that it signs nothing else; use another key, or set allow_raw_signing on managed key \"ca\" \
                    if it is to serve both";
        assert_eq!(desk.refused(&desk.transit, &ca), text);
        // Another mount of the type, and the same one again.
        let other = mount("pki", "3");
        desk.there.lock().push(Arc::clone(&other));
        desk.bind(&other, &ca).unwrap();
        desk.unbind(&desk.pki, &ca);
        desk.refused(&desk.transit, &ca);
        desk.unbind(&other, &ca);
        desk.bind(&desk.transit, &ca).unwrap();
        assert!(desk.refused(&desk.pki, &ca).contains("bound to type transit"));
    });
}

#[test]
fn a_use_that_is_not_noted_in_the_end_binds_only_while_it_is_held() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        let held = desk.keys.bind(&desk.pki, &ca).unwrap();
        desk.refused(&desk.transit, &ca);
        drop(held);
        desk.bind(&desk.transit, &ca).unwrap();
    });
}

#[test]
fn the_same_key_by_another_name_is_the_same_key() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        let alias = desk.key("alias", json!({"key_label": "", "key_id": "07", "library": "bare", "pin": "1234"})).await;
        desk.bind(&desk.pki, &ca).unwrap();
        let told = desk.refused(&desk.transit, &alias);
        assert!(told.contains("by mount \"pki-1/\", as managed key \"ca\""), "{told}");
        assert!(told.contains("set allow_raw_signing on managed key \"alias\" and \"ca\""), "{told}");
        // Both must say it.
        for (name, more) in [
            ("alias", json!({"key_label": "", "key_id": "07", "library": "bare", "allow_raw_signing": true})),
            ("ca", json!({"allow_raw_signing": true})),
        ] {
            desk.refused(&desk.transit, &alias);
            desk.write(name, more).await.unwrap();
        }
        desk.bind(&desk.transit, &alias).unwrap();
        // While both use it, neither may take it back.
        let text = "allow_raw_signing of managed key \"ca\" cannot be taken back: its key is used by mounts of several types \
                    (pki, transit); end the uses of all but one type first";
        assert_eq!(desk.write("ca", json!({})).await, Err(Fault::invalid(text)));
        assert_eq!(desk.keys.show(&Namespace::root(), "pkcs11", "ca").unwrap()["allow_raw_signing"], true);
        desk.unbind(&desk.pki, &ca);
        desk.write("ca", json!({})).await.unwrap();
        desk.refused(&desk.pki, &ca);
        assert_eq!(desk.keys.show(&Namespace::root(), "pkcs11", "ca").unwrap()["allow_raw_signing"], false);
    });
}

#[test]
fn nobody_counts_on_what_is_being_taken_back() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({"allow_raw_signing": true})).await;
        desk.bind(&desk.pki, &ca).unwrap();
        let taking = desk.keys.withdraw_raw_signing(&ca).unwrap();
        desk.refused(&desk.transit, &ca);
        // It failed: all is as it was.
        drop(taking);
        let held = desk.keys.bind(&desk.transit, &ca).unwrap();
        assert!(desk.keys.withdraw_raw_signing(&ca).is_err(), "a use that is about to be noted counts");
        drop(held);
        assert!(desk.keys.withdraw_raw_signing(&ca).is_ok());
    });
}

#[test]
fn of_two_that_come_at_once_one_is_refused() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        for _ in 0..200 {
            let (start, end) = (Barrier::new(2), Barrier::new(2));
            let bound = |mount: &Arc<Mount>| {
                start.wait();
                let binding = desk.keys.bind(mount, &ca);
                end.wait();
                usize::from(binding.is_ok())
            };
            let both = std::thread::scope(|scope| {
                let other = scope.spawn(|| bound(&desk.transit));
                bound(&desk.pki) + other.join().unwrap()
            });
            assert_eq!(both, 1);
        }
    });
}

#[test]
fn what_a_mount_that_is_gone_used_is_free() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        desk.bind(&desk.pki, &ca).unwrap();
        // Another at its path is another mount.
        desk.there.lock().retain(|mount| mount.uuid != "1");
        desk.bind(&desk.transit, &ca).unwrap();
        desk.keys.end_mount(&desk.pki).await;
        // One that ends late leaves nothing.
        desk.keys.unbind(&desk.pki, &ca);
        desk.there.lock().push(Arc::clone(&desk.pki));
        desk.refused(&desk.pki, &ca);
    });
}

#[test]
fn bindings_outlive_a_restart_and_those_of_mounts_that_went_do_not() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        desk.bind(&desk.pki, &ca).unwrap();
        let again = desk.restarted();
        again.refused(&again.transit, &ca);
        again.unbind(&again.pki, &ca);
        again.bind(&again.transit, &ca).unwrap();
        again.there.lock().retain(|mount| mount.engine != "transit");
        let again = again.restarted();
        again.bind(&again.pki, &ca).unwrap();
    });
}

#[test]
fn what_a_namespace_uses_that_is_not_served_binds_all_the_same() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        let transit = Arc::new(Mount { namespace: Namespace::from_path("b"), ..Mount::clone(&desk.transit) });
        desk.note(&desk.pki, &ca);
        // As with shared_keys: the same key is another namespace's too.
        let b = Namespace::from_path("b");
        let record = |allow_raw_signing: bool| {
            let entry = Arc::clone(desk.keys.table().by_uuid(&ca).unwrap());
            let settings = Settings { allow_raw_signing, ..entry.settings.clone() };
            let copy =
                Entry { uuid: "copy".into(), settings, ..entry.with(entry.ready.as_ref().unwrap().identity.clone()) };
            let write = Write::put_record(RecordKey::new(&b, COLLECTION, "copy"), &KeyRecord::of(&copy));
            desk.keys.store().commit_now(vec![write.unwrap()]).unwrap();
        };
        record(false);
        let there = vec![Arc::clone(&desk.pki), Arc::clone(&transit)];
        // The root's is served no more, and `b` is.
        let serve_b = || {
            let keys = ManagedKeys::new(desk.keys.store().clone(), desk.token.supervisor(), &Limits::default());
            let there = there.clone();
            let mounts: Mounts = Arc::new(move |namespace| {
                there.iter().filter(|mount| mount.namespace == *namespace).cloned().collect()
            });
            keys.load(std::slice::from_ref(&b), mounts).unwrap();
            keys
        };
        let Err(Fault::InvalidRequest { reason }) = serve_b().bind(&transit, "copy").map(drop) else {
            panic!("bound to two types")
        };
        assert!(reason.contains("bound to type pki (by a mount of another namespace)"), "{reason}");
        // Both must allow it: what is not served says so in its record.
        record(true);
        assert!(serve_b().bind(&transit, "copy").is_err());
        desk.write("ca", json!({"allow_raw_signing": true})).await.unwrap();
        assert!(serve_b().bind(&transit, "copy").is_ok());
    });
}

#[test]
fn what_mixed_before_goes_on_and_nothing_is_added_to_it() {
    story(|desk| async move {
        let ca = desk.key("ca", json!({})).await;
        let alias = desk.key("alias", json!({"key_label": "", "key_id": "07"})).await;
        desk.note(&desk.pki, &ca);
        desk.note(&desk.transit, &ca);
        let again = desk.restarted();
        // As both do already.
        again.bind(&again.pki, &ca).unwrap();
        again.bind(&again.transit, &ca).unwrap();
        again.refused(&again.transit, &alias);
        // Other settings can be written all the same.
        again.write("ca", json!({"max_parallel": 2})).await.unwrap();
    });
}

#[test]
fn a_secret_key_is_bound_to_nothing() {
    story(|desk| async move {
        let aes = desk.key(
            "aes",
            json!({"key_label": "aes", "mechanism": "0x1087", "key_bits": 256, "usages": "encrypt",
            "allow_generate_key": true}),
        );
        let aes = aes.await;
        desk.bind(&desk.pki, &aes).unwrap();
        desk.bind(&desk.transit, &aes).unwrap();
    });
}
