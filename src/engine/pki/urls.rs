//! `config/urls`: where certificates say that their issuer, its CRLs and its OCSP responder are. An issuer may have URLs of
//! its own instead.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Pki, names};
use crate::model::{Data, Fault, Fields, Response};
use crate::store::{Versioned, Write};

/// The most URLs of one kind.
const URLS_MAX: usize = 32;
/// What templates stand for: the issuer's id, and the two addresses of `config/cluster`.
pub(super) const ISSUER_ID: &str = "{{issuer_id}}";
pub(super) const CLUSTER_PATH: &str = "{{cluster_path}}";
pub(super) const CLUSTER_AIA_PATH: &str = "{{cluster_aia_path}}";

/// The URLs of a mount or an issuer, by Vault's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Urls {
    pub(super) issuing_certificates: Vec<String>,
    pub(super) crl_distribution_points: Vec<String>,
    #[serde(default)]
    pub(super) delta_crl_distribution_points: Vec<String>,
    pub(super) ocsp_servers: Vec<String>,
    /// Whether `{{…}}` in them stands for something.
    #[serde(default)]
    pub(super) enable_templating: bool,
}

impl Versioned for Urls {
    const VERSION: u16 = 2;

    /// Format 1 had no delta CRLs and no templates.
    fn upgrade(_: u16, value: &[u8]) -> Result<Urls, Fault> {
        serde_json::from_slice(value).map_err(|_| Fault::internal("its JSON does not parse"))
    }
}

impl Urls {
    /// These, with what a request names replaced. `templating` is the field that turns templates on.
    pub(super) fn updated(&self, fields: &mut Fields<'_>, templating: &'static str) -> Result<Urls, Fault> {
        let enable_templating = fields.boolean(templating)?.unwrap_or(self.enable_templating);
        let mut list = |name: &'static str, present: &Vec<String>| -> Result<Vec<String>, Fault> {
            let urls = fields.list(name)?.unwrap_or_else(|| present.clone());
            if let Some(odd) = urls.iter().find(|url| !is_url(url, enable_templating)) {
                return Err(Fault::invalid(format!(
                    "invalid URL found in Authority Information Access (AIA) parameter {name}: {odd}"
                )));
            }
            if urls.len() > URLS_MAX {
                return Err(Fault::invalid(format!("{name} has more than {URLS_MAX} URLs")));
            }
            Ok(urls)
        };
        Ok(Urls {
            issuing_certificates: list("issuing_certificates", &self.issuing_certificates)?,
            crl_distribution_points: list("crl_distribution_points", &self.crl_distribution_points)?,
            delta_crl_distribution_points: list("delta_crl_distribution_points", &self.delta_crl_distribution_points)?,
            ocsp_servers: list("ocsp_servers", &self.ocsp_servers)?,
            enable_templating,
        })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        let Urls { issuing_certificates, crl_distribution_points, delta_crl_distribution_points, ocsp_servers, .. } =
            self;
        [issuing_certificates, crl_distribution_points, delta_crl_distribution_points, ocsp_servers]
            .iter()
            .all(|list| list.is_empty())
    }

    /// As they are read; `templating` is the name of the field that turns templates on.
    pub(super) fn show(&self, templating: &'static str) -> Data {
        let mut data = Data::new();
        data.insert("issuing_certificates".into(), json!(self.issuing_certificates));
        data.insert("crl_distribution_points".into(), json!(self.crl_distribution_points));
        data.insert("delta_crl_distribution_points".into(), json!(self.delta_crl_distribution_points));
        data.insert("ocsp_servers".into(), json!(self.ocsp_servers));
        data.insert(templating.into(), json!(self.enable_templating));
        data
    }
}

/// Whether it is a URL, or becomes one once its templates are filled in.
fn is_url(text: &str, is_template: bool) -> bool {
    if !is_template {
        return names::is_url(text);
    }
    let filled = text
        .replace(ISSUER_ID, "11111111-2222-3333-4444-555555555555")
        .replace(CLUSTER_PATH, "http://cluster.example/v1/pki")
        .replace(CLUSTER_AIA_PATH, "http://cluster.example/v1/pki");
    names::is_url(&filled)
}

impl Pki {
    /// `GET config/urls`.
    pub(super) fn read_urls(&self) -> Response {
        Response::data(self.authority.load().urls.show("enable_templating"))
    }

    /// `POST config/urls`: what is not named stays.
    pub(super) async fn write_urls(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        self.change(move |pki| {
            let authority = pki.authority.load_full();
            let mut fields = Fields::new(&data);
            let urls = authority.urls.updated(&mut fields, "enable_templating")?;
            pki.store.commit_now(vec![Write::put_record(pki.records.urls(), &urls)?])?;
            let shown = urls.show("enable_templating");
            pki.publish_authority(authority.with_urls(urls)?);
            Ok(Response::with_warnings(shown, fields.warnings()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn update(urls: &Urls, value: Value) -> Result<Urls, Fault> {
        urls.updated(&mut Fields::new(value.as_object().unwrap()), "enable_templating")
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let first = update(&Urls::default(), json!({"issuing_certificates": "http://a/ca,http://b/ca"})).unwrap();
        let second = update(&first, json!({"crl_distribution_points": ["http://a/crl"]})).unwrap();
        assert_eq!(second.issuing_certificates.len(), 2);
        assert!(update(&second, json!({"issuing_certificates": ""})).unwrap().issuing_certificates.is_empty());
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for bad in [
            json!({"ocsp_servers": "nowhere"}),
            json!({"issuing_certificates": "http://a/{{issuer_id}}"}),
            json!({"issuing_certificates": "{{issuer_id}}", "enable_templating": true}),
        ] {
            assert!(update(&Urls::default(), bad.clone()).is_err(), "{bad}");
        }
        let templates = json!({"issuing_certificates": "{{cluster_aia_path}}/issuer/{{issuer_id}}/der",
            "enable_templating": true});
        assert!(update(&Urls::default(), templates).unwrap().enable_templating);
    }

    #[test]
    fn the_first_format_reads_as_it_was_meant() {
        let first = br#"{"issuing_certificates":["http://a/ca"],"crl_distribution_points":[],"ocsp_servers":[]}"#;
        let urls = Urls::upgrade(1, first).unwrap();
        assert_eq!(urls.issuing_certificates, ["http://a/ca"]);
        assert!(!urls.enable_templating && Urls::upgrade(1, b"{").is_err());
    }
}
