//! What a DNS name, an email address, a URI and an IP address may look like before they go into a certificate.
//!
//! Only the form is judged here; whether a role allows the name is judged in `allowed`.

use std::net::IpAddr;

/// The longest DNS name in octets (RFC 1035, 2.3.4), written without a final dot.
const DNS_BYTES_MAX: usize = 253;
/// The longest label of a DNS name.
const LABEL_BYTES_MAX: usize = 63;
/// The longest local part of an email address (RFC 5321, 4.5.3.1).
const LOCAL_BYTES_MAX: usize = 64;
/// The longest URI.
const URI_BYTES_MAX: usize = 2048;

/// Whether `name` is a host name: labels of letters, digits and inner hyphens (RFC 1123), with at most one `*` standing
/// in the leftmost label (RFC 6125, 6.4.3), and perhaps a final dot.
pub(super) fn is_hostname(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > DNS_BYTES_MAX {
        return false;
    }
    let mut labels = name.split('.');
    let first = labels.next().unwrap_or_default();
    (is_label(first) || is_wildcard_label(first)) && labels.all(is_label)
}

/// Whether `name` may be a `dNSName` at all, where a role does not insist on host names: printable ASCII without blanks
/// and quotes, labels that are not empty, of legal length, and a `*` nowhere but once in the leftmost label.
pub(super) fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let fit = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'@' | b'/' | b'\\' | b'<' | b'>');
    !name.is_empty()
        && name.len() <= DNS_BYTES_MAX
        && name.bytes().all(fit)
        && name.split('.').all(|label| !label.is_empty() && label.len() <= LABEL_BYTES_MAX)
        && name.bytes().filter(|byte| *byte == b'*').count() <= 1
        && name.split('.').skip(1).all(|label| !label.contains('*'))
}

/// Whether `label` is a label of a host name.
pub(super) fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether `label` is a leftmost label with one `*`: alone, or before, after or within letters and digits.
pub(super) fn is_wildcard_label(label: &str) -> bool {
    let Some((before, after)) = label.split_once('*') else { return false };
    label.len() <= LABEL_BYTES_MAX
        && (before.is_empty() || is_label(before))
        && (after.is_empty() || is_label(after))
        && !after.contains('*')
}

/// Whether `address` is an email address as certificates carry it: `local@host`, ASCII, without quotes, blanks and
/// comments (RFC 5280, 4.2.1.6).
pub(super) fn is_email(address: &str) -> bool {
    let Some((local, host)) = address.split_once('@') else { return false };
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    !local.is_empty()
        && local.len() <= LOCAL_BYTES_MAX
        && local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom))
        && !host.contains('*')
        && is_hostname(host)
}

/// Whether `uri` is an absolute URI (RFC 3986): a scheme, a colon and something after it, of the characters URIs have,
/// percent signs only before two hexadecimal digits.
pub(super) fn is_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
    let mut escapes = rest.split('%').skip(1);
    scheme_fits
        && uri.len() <= URI_BYTES_MAX
        && !rest.is_empty()
        && rest != "//"
        && rest.bytes().all(fit)
        && escapes.all(|after| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

/// Whether `uri` is an `http`, `https` or `ldap` URL with a host: what revocation and issuer pointers are.
pub(super) fn is_url(uri: &str) -> bool {
    let host = ["http://", "https://", "ldap://", "ldaps://"].iter().find_map(|scheme| uri.strip_prefix(scheme));
    is_uri(uri) && host.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

/// The IP address `text` writes, an IPv4 address within IPv6 taken as IPv4.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The address and mask of a network such as `10.0.0.0/8`, as name constraints carry it (RFC 5280, 4.2.1.10).
pub(super) fn parse_network(text: &str) -> Option<Vec<u8>> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u32 = length.parse().ok()?;
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    if length as usize > octets.len() * 8 {
        return None;
    }
    let mask = (0..octets.len() as u32).map(|index| {
        let bits = length.saturating_sub(index * 8).min(8);
        // The upper `bits` bits of the octet.
        (0xFF00_u32 >> bits) as u8
    });
    let mask: Vec<u8> = mask.collect();
    let network = octets.iter().zip(&mask).map(|(octet, mask)| octet & mask);
    Some(network.chain(mask.iter().copied()).collect())
}

/// Whether `text` may stand in a subject: not empty, not too long, no control characters.
pub(super) fn is_subject_text(text: &str, characters_max: usize) -> bool {
    !text.is_empty() && text.chars().count() <= characters_max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_names_are_told_from_the_rest() {
        for good in ["example.com", "a", "a-b.c1", "*.example.com", "b*z.example.net", "*", "xn--bcher-kva.de", "x.y."]
        {
            assert!(is_hostname(good), "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a.b", "a-.b", "a_b.c", "a b", "a.*.b", "**.a", "a\0.b", "bücher.de", "*-.a", "a.b.."]
        {
            assert!(!is_hostname(bad), "{bad:?}");
        }
        assert!(!is_hostname(&format!("{}.com", "a".repeat(64))));
        assert!(!is_hostname(&["a"; 130].join(".")));
    }

    #[test]
    fn odd_dns_names_still_have_a_form() {
        for good in ["_sip._tcp.example.com", "a", "under_score.x"] {
            assert!(is_dns_name(good), "{good}");
        }
        for bad in ["", "a b", "a\0b", "a..b", "a@b", "a/b", "x.*.y", "é"] {
            assert!(!is_dns_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn email_addresses_have_one_at_and_a_host() {
        for good in ["a@b", "first.last+tag@example.com"] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "@b", "a@", "a@b@c", "a b@c", "a..b@c", "\"a\"@c", "a@*.c", "a\0@b", "a@b_c"] {
            assert!(!is_email(bad), "{bad:?}");
        }
    }

    #[test]
    fn uris_are_absolute() {
        for good in ["spiffe://trust/ns/x", "urn:uuid:1", "https://a/%20b", "http://[::1]/"] {
            assert!(is_uri(good), "{good}");
        }
        for bad in ["", "a", "://x", "1http://x", "http:", "http://", "http://a b", "http://a/%2", "http://a\0", "x:é"]
        {
            assert!(!is_uri(bad), "{bad:?}");
        }
        assert!(is_url("http://ca.example.com/ca.crt"));
        assert!(!is_url("urn:x") && !is_url("http:///x"));
    }

    #[test]
    fn networks_become_address_and_mask() {
        assert_eq!(parse_network("10.1.2.3/8").unwrap(), [10, 0, 0, 0, 255, 0, 0, 0]);
        assert_eq!(parse_network("192.168.1.0/25").unwrap(), [192, 168, 1, 0, 255, 255, 255, 128]);
        assert_eq!(parse_network("0.0.0.0/0").unwrap(), [0; 8]);
        assert_eq!(parse_network("::/0").unwrap(), [0; 32]);
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert_eq!(parse_network(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_harm(text in "\\PC{0,80}") {
            let _ = (is_hostname(&text), is_dns_name(&text), is_email(&text), is_uri(&text), is_url(&text));
            let _ = (parse_ip(&text), parse_network(&text), is_wildcard_label(&text));
        }

        #[test]
        fn a_host_name_is_a_dns_name(text in "[a-c*.-]{0,12}") {
            prop_assert!(!is_hostname(&text) || is_dns_name(&text));
        }
    }
}
