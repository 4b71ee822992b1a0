//! Request paths: decoded once, and nothing in them that could mean two things.

use percent_encoding::percent_decode_str;

use crate::model::Fault;

/// Longest path, decoded, in bytes.
const PATH_BYTES: usize = 4096;

/// What OCSP requests in a path follow. They are base64, where `/` is a digit like others, also twice and at the end
/// (RFC 6960, A.1); each begins with the digit that a DER SEQUENCE begins with.
const OCSP: &str = "/ocsp/";
const SEQUENCE: char = 'M';
/// Where paths of Keyway's own begin, in every namespace: nothing below it is an OCSP request.
const SYSTEM: &str = "sys";

/// The path below `/v1/`, decoded, without its trailing slash; `None` if it is elsewhere.
pub(super) fn below_v1(raw: &str) -> Result<Option<String>, Fault> {
    let Some(raw) = raw.strip_prefix("/v1/") else { return Ok(None) };
    let path = percent_decode_str(raw).decode_utf8().map_err(|_| Fault::invalid("the path is not UTF-8"))?;
    if let Some((before, request)) = path.split_once(OCSP)
        && is_ocsp_request(before, request)
    {
        check_length(&path)?;
        check(before)?;
        return Ok(Some(path.into_owned()));
    }
    let path = path.strip_suffix('/').unwrap_or(&path);
    check(path)?;
    Ok(Some(path.to_owned()))
}

/// Refuses what no path of ours has.
pub(super) fn check(path: &str) -> Result<(), Fault> {
    check_length(path)?;
    if path.chars().any(char::is_control) {
        return Err(Fault::invalid("the path has control characters"));
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Fault::invalid("the path has an empty part, `.` or `..`"));
    }
    Ok(())
}

fn check_length(path: &str) -> Result<(), Fault> {
    if path.len() > PATH_BYTES {
        return Err(Fault::invalid(format!("the path is longer than {PATH_BYTES} bytes")));
    }
    Ok(())
}

/// Whether what follows `before` and `ocsp` in a path is base64.
fn is_ocsp_request(before: &str, request: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    request.starts_with(SEQUENCE) && request.bytes().all(is_digit) && !before.split('/').any(|part| part == SYSTEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(below_v1("/v1/pki/cert/4f%3a1a/"), Ok(Some("pki/cert/4f:1a".into())));
        assert_eq!(below_v1("/v1/a%252fb"), Ok(Some("a%2fb".into())));
        assert_eq!(below_v1("/ui/"), Ok(None));
    }

    #[test]
    fn an_ocsp_request_keeps_every_slash() {
        assert_eq!(below_v1("/v1/pki/ocsp/MEIw//a+%2f%3D/"), Ok(Some("pki/ocsp/MEIw//a+/=/".into())));
        assert_eq!(below_v1("/v1/roles/ocsp/"), Ok(Some("roles/ocsp".into())));
        for raw in ["/v1/pki//ocsp/MEIw", "/v1/pki/ocsp/x//y", "/v1/pki/ocsp/M/../y", "/v1/n/sys/mounts/ocsp/M//y"] {
            assert!(below_v1(raw).is_err(), "{raw}");
        }
        assert!(below_v1(&format!("/v1/pki/ocsp/M{}", "/".repeat(PATH_BYTES))).is_err());
    }

    #[test]
    fn tricks_are_refused() {
        for raw in ["/v1/a/../b", "/v1/a/%2e%2e/b", "/v1/a//b", "/v1/a%2f%2fb", "/v1/a%00", "/v1/%ff", "/v1/./a"] {
            assert!(below_v1(raw).is_err(), "{raw}");
        }
    }
}
