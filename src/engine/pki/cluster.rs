//! `config/cluster`: where clients reach this mount from outside, for URLs with templates.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::urls::{CLUSTER_AIA_PATH, CLUSTER_PATH, ISSUER_ID, Urls};
use super::{Pki, names};
use crate::model::{Data, Fault, Fields, Response};
use crate::store::{Versioned, Write};

/// The addresses of this mount; empty where none was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cluster {
    pub(super) path: String,
    pub(super) aia_path: String,
}

impl Versioned for Cluster {
    const VERSION: u16 = 1;
}

impl Cluster {
    fn updated(&self, fields: &mut Fields<'_>) -> Result<Cluster, Fault> {
        let mut url = |name: &'static str, present: &String| -> Result<String, Fault> {
            let url = fields.text(name)?.unwrap_or_else(|| present.clone());
            if !url.is_empty() && !names::is_url(&url) {
                return Err(Fault::invalid(format!("invalid, non-URL {name} given to cluster: {url}")));
            }
            Ok(url)
        };
        Ok(Cluster { path: url("path", &self.path)?, aia_path: url("aia_path", &self.aia_path)? })
    }

    fn show(&self) -> Data {
        let value = json!({"path": self.path, "aia_path": self.aia_path});
        value.as_object().cloned().unwrap_or_default()
    }

    /// `urls` with every template filled in for an issuer. Refused where one needs an address that was not given.
    pub(super) fn fill(&self, urls: &Urls, issuer: &str) -> Result<Urls, Fault> {
        if !urls.enable_templating {
            return Ok(urls.clone());
        }
        let fill_one = |url: &String| -> Result<String, Fault> {
            let mut filled = url.replace(ISSUER_ID, issuer);
            for (template, value, field) in
                [(CLUSTER_PATH, &self.path, "path"), (CLUSTER_AIA_PATH, &self.aia_path, "aia_path")]
            {
                if filled.contains(template) && value.is_empty() {
                    return Err(Fault::invalid(format!(
                        "unable to template AIA URLs as we lack local cluster address information ({field}): set it with \
                         config/cluster"
                    )));
                }
                filled = filled.replace(template, value);
            }
            if names::is_url(&filled) {
                return Ok(filled);
            }
            Err(Fault::invalid(format!("the AIA URL {url:?} is no URL once its templates are filled in: {filled:?}")))
        };
        let fill_all = |urls: &[String]| urls.iter().map(fill_one).collect::<Result<Vec<_>, _>>();
        Ok(Urls {
            issuing_certificates: fill_all(&urls.issuing_certificates)?,
            crl_distribution_points: fill_all(&urls.crl_distribution_points)?,
            delta_crl_distribution_points: fill_all(&urls.delta_crl_distribution_points)?,
            ocsp_servers: fill_all(&urls.ocsp_servers)?,
            enable_templating: false,
        })
    }
}

impl Pki {
    /// `GET config/cluster`.
    pub(super) fn read_cluster(&self) -> Response {
        Response::data(self.authority.load().cluster.show())
    }

    /// `POST config/cluster`: what is not named stays.
    pub(super) async fn write_cluster(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        self.change(move |pki| {
            let authority = pki.authority.load_full();
            let mut fields = Fields::new(&data);
            let cluster = authority.cluster.updated(&mut fields)?;
            pki.store.commit_now(vec![Write::put_record(pki.records.cluster(), &cluster)?])?;
            let shown = cluster.show();
            pki.publish_authority(authority.with_cluster(cluster)?);
            Ok(Response::with_warnings(shown, fields.warnings()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in_or_said_to_lack_an_address() {
        let urls = Urls {
            issuing_certificates: vec!["{{cluster_aia_path}}/issuer/{{issuer_id}}/der".into()],
            ocsp_servers: vec!["{{cluster_path}}/ocsp".into()],
            enable_templating: true,
            ..Urls::default()
        };
        let cluster = Cluster { path: "http://a/v1/pki".into(), aia_path: "http://b/pki".into() };
        let filled = cluster.fill(&urls, "7").unwrap();
        assert_eq!(filled.issuing_certificates, ["http://b/pki/issuer/7/der"]);
        assert_eq!(filled.ocsp_servers, ["http://a/v1/pki/ocsp"]);
        let lacking = Cluster { aia_path: String::new(), ..cluster }.fill(&urls, "7").unwrap_err();
        assert!(lacking.to_string().contains("aia_path"), "{lacking}");
        // Without templates braces are as good as any text.
        let plain = Urls { enable_templating: false, ..urls.clone() };
        assert_eq!(Cluster::default().fill(&plain, "7").unwrap(), plain);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let data = json!({"path": "here"});
        assert!(Cluster::default().updated(&mut Fields::new(data.as_object().unwrap())).is_err());
    }
}
