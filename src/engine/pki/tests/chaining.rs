//! Chains of certificates that sign each other in many ways.

use super::*;
use crate::engine::pki::ca_certificate::CaCertificate;
use crate::engine::pki::chain::Chains;
use crate::engine::pki::pem;

/// Signs `below`'s key and name by `above`, both made by openssl as `NAME.key`.
fn signed(desk: &Desk, below: &str, above: &str, name: &str) -> Arc<CaCertificate> {
    let out = format!("{name}.pem");
    let (csr, key, ca) = (format!("{below}.csr"), format!("{above}.key"), format!("{above}-root.pem"));
    let sign = ["x509", "-req", "-CAcreateserial", "-days", "30", "-extfile", "ca.ext"];
    desk.openssl(&[&sign[..], &["-in", &csr, "-CA", &ca, "-CAkey", &key, "-out", &out]].concat());
    read(desk, &out)
}

fn read(desk: &Desk, file: &str) -> Arc<CaCertificate> {
    let text = std::fs::read_to_string(desk.folder.path().join(file)).unwrap();
    Arc::new(CaCertificate::parse(&pem::decode(&text, &[pem::CERTIFICATE]).unwrap()).unwrap())
}

/// A key called `name`, a request for it, and its own root.
fn key(desk: &Desk, name: &str) -> Arc<CaCertificate> {
    let (key, csr, root, subject) =
        (format!("{name}.key"), format!("{name}.csr"), format!("{name}-root.pem"), format!("/CN={name}"));
    desk.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
    desk.openssl(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &csr]);
    desk.openssl(&["req", "-x509", "-new", "-key", &key, "-subj", &subject, "-days", "30", "-out", &root]);
    read(desk, &root)
}

#[test]
fn the_shortest_way_to_a_root_is_the_chain() {
    let desk = Desk::new(&[]);
    desk.put("ca.ext", "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid");
    let (a, b) = (key(&desk, "a"), key(&desk, "b"));
    key(&desk, "c");
    key(&desk, "d");
    // a and b sign each other's keys too; c is below a, and d below c and below b.
    let (a_by_b, b_by_a) = (signed(&desk, "a", "b", "a-by-b"), signed(&desk, "b", "a", "b-by-a"));
    let c = signed(&desk, "c", "a", "c-by-a");
    let (d_by_c, d_by_b) = (signed(&desk, "d", "c", "d-by-c"), signed(&desk, "d", "b", "d-by-b"));
    let all = [&a, &b, &a_by_b, &b_by_a, &c, &d_by_c, &d_by_b].map(Arc::clone);
    let chain = |of: usize, among: &[Arc<CaCertificate>]| {
        let found = Chains::new(among).unwrap().of(of);
        found.iter().map(|link| link.x509.serial).collect::<Vec<_>>()
    };
    let serials = |links: &[&Arc<CaCertificate>]| links.iter().map(|link| link.x509.serial).collect::<Vec<_>>();
    assert_eq!(chain(0, &all), serials(&[&a]));
    assert_eq!(chain(3, &all), serials(&[&b_by_a, &a]));
    assert_eq!(chain(4, &all), serials(&[&c, &a]));
    assert_eq!(chain(5, &all), serials(&[&d_by_c, &c, &a]));
    assert_eq!(chain(6, &all), serials(&[&d_by_b, &b]));
    // Where no root is here, as far as it goes; and two that sign each other are no circle.
    assert_eq!(chain(1, &[Arc::clone(&a_by_b), Arc::clone(&b_by_a)]), serials(&[&b_by_a, &a_by_b]));
    assert_eq!(chain(0, &[Arc::clone(&d_by_c), Arc::clone(&c)]), serials(&[&d_by_c, &c]));
}
