//! Libraries that are odd, each in its own way, and serve all the same.

use serde_json::json;

use crate::daemon::Setup;
use crate::rig::{Rig, module, probing};
use crate::sim::{PIN, Sim};
use crate::token::{self, Token};

/// As p11-kit's modules do.
#[tokio::test]
async fn a_library_may_give_another_instance_at_each_look_at_its_functions() {
    for stanza in ["isolation = \"none\"", "isolation = \"process\""] {
        let token = Token::absent();
        let slot = json!({"label": "one", "pin": PIN, "keys": [{"label": "doc"}]});
        let settings = json!({"instances": true, "null": {"slots": [slot]}});
        let sim = Sim::new(token::module(), &module(&token), &settings);
        let rig = Rig::on(token, sim, Setup { more: probing(""), stanza, ..Setup::default() }).await;
        rig.key("doc", json!({})).await;
        assert_eq!(rig.test_sign("doc").await, (204, String::new()), "{stanza}: {}", rig.daemon.log());
    }
}
