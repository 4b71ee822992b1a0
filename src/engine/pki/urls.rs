//! `config/urls`: where certificates say that their issuer, its CRL and its OCSP responder are.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::names;
use crate::model::{Data, Fault, Fields};
use crate::store::Versioned;

/// The most URLs of one kind.
const URLS_MAX: usize = 32;

/// The URLs of a mount, by Vault's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Urls {
    pub(super) issuing_certificates: Vec<String>,
    pub(super) crl_distribution_points: Vec<String>,
    pub(super) ocsp_servers: Vec<String>,
}

impl Versioned for Urls {
    const VERSION: u16 = 1;
}

impl Urls {
    /// These, with what a request names replaced. Also answers warnings.
    pub(super) fn updated(&self, data: &Data) -> Result<(Urls, Vec<String>), Fault> {
        let mut fields = Fields::new(data);
        fields.refuse(&["delta_crl_distribution_points", "enable_templating"])?;
        let mut list = |name: &'static str, present: &Vec<String>| -> Result<Vec<String>, Fault> {
            let Some(urls) = fields.list(name)? else { return Ok(present.clone()) };
            if let Some(odd) = urls.iter().find(|url| !names::is_url(url)) {
                return Err(Fault::invalid(format!(
                    "invalid URL found in Authority Information Access (AIA) parameter {name}: {odd}"
                )));
            }
            if urls.len() > URLS_MAX {
                return Err(Fault::invalid(format!("{name} has more than {URLS_MAX} URLs")));
            }
            Ok(urls)
        };
        let urls = Urls {
            issuing_certificates: list("issuing_certificates", &self.issuing_certificates)?,
            crl_distribution_points: list("crl_distribution_points", &self.crl_distribution_points)?,
            ocsp_servers: list("ocsp_servers", &self.ocsp_servers)?,
        };
        Ok((urls, fields.warnings()))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Urls::default()
    }

    /// As they are read.
    pub(super) fn show(&self) -> Data {
        let mut data = Data::new();
        data.insert("issuing_certificates".into(), json!(self.issuing_certificates));
        data.insert("crl_distribution_points".into(), json!(self.crl_distribution_points));
        data.insert("delta_crl_distribution_points".into(), json!([]));
        data.insert("ocsp_servers".into(), json!(self.ocsp_servers));
        data.insert("enable_templating".into(), json!(false));
        data
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn update(urls: &Urls, value: Value) -> Result<Urls, Fault> {
        urls.updated(value.as_object().unwrap()).map(|(urls, _)| urls)
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let first = update(&Urls::default(), json!({"issuing_certificates": "http://a/ca,http://b/ca"})).unwrap();
        let second = update(&first, json!({"crl_distribution_points": ["http://a/crl"]})).unwrap();
        assert_eq!(second.issuing_certificates.len(), 2);
        assert!(update(&second, json!({"issuing_certificates": ""})).unwrap().issuing_certificates.is_empty());
    }

    #[test]
    fn what_is_no_url_or_not_built_is_refused() {
        for bad in [
            json!({"ocsp_servers": "nowhere"}),
            json!({"enable_templating": true}),
            json!({"delta_crl_distribution_points": "http://a/d"}),
        ] {
            assert!(update(&Urls::default(), bad.clone()).is_err(), "{bad}");
        }
    }
}
