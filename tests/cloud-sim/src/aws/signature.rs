//! Signature Version 4: who signed a request, when, and whether that is so.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

use super::error::{Error, hex};
use crate::server::Request;

/// How far a request's time may be from the service's.
const SKEW_MS: i64 = 5 * 60 * 1000;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What the `Authorization` header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) access_key: String,
    date: String,
    pub(super) region: String,
    service: String,
    signed_headers: Vec<String>,
    signature: String,
}

impl Signature {
    /// Reads it.
    pub(super) fn of(request: &Request) -> Result<Signature, Error> {
        let Some(header) = request.headers().get("authorization") else {
            return Err(Error::bad("MissingAuthenticationTokenException", "Missing Authentication Token"));
        };
        let text = header.to_str().unwrap_or_default();
        parse(text).ok_or_else(|| {
            Error::bad("IncompleteSignatureException", "Authorization header does not conform to Signature Version 4.")
        })
    }

    /// Whether it was made lately, by the service's clock.
    pub(super) fn check_time(&self, request: &Request, now_ms: i64) -> Result<(), Error> {
        let stamp = header(request, "x-amz-date");
        let Some(at_ms) = milliseconds(&stamp).filter(|_| stamp.starts_with(&self.date)) else {
            return Err(Error::bad("IncompleteSignatureException", "Date must be in ISO-8601 'basic format'."));
        };
        let now = written(now_ms);
        if at_ms < now_ms - SKEW_MS {
            let limit = written(now_ms - SKEW_MS);
            let what = format!("Signature expired: {stamp} is now earlier than {limit} ({now} - 5 min.)");
            return Err(Error::bad("InvalidSignatureException", what));
        }
        if at_ms > now_ms + SKEW_MS {
            let limit = written(now_ms + SKEW_MS);
            let what = format!("Signature not yet current: {stamp} is still later than {limit} ({now} + 5 min.)");
            return Err(Error::bad("InvalidSignatureException", what));
        }
        Ok(())
    }

    /// Whether it was made with this secret.
    pub(super) fn check(&self, request: &Request, secret: &str) -> Result<(), Error> {
        let expected = self.expected(request, secret);
        verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes()).map_err(|_| {
            let what = "The request signature we calculated does not match the signature you provided. Check your AWS \
                        Secret Access Key and signing method. Consult the service documentation for details.";
            Error::bad("InvalidSignatureException", what)
        })
    }

    fn expected(&self, request: &Request, secret: &str) -> String {
        let headers: String = self
            .signed_headers
            .iter()
            .map(|name| format!("{name}:{}\n", header(request, name).split_whitespace().collect::<Vec<_>>().join(" ")))
            .collect();
        let canonical = [
            request.method().as_str(),
            request.uri().path(),
            &canonical_query(request.uri().query().unwrap_or_default()),
            &headers,
            &self.signed_headers.join(";"),
            &sha256(request.body()),
        ]
        .join("\n");
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        let stamp = header(request, "x-amz-date");
        let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let key = [self.date.as_str(), &self.region, &self.service, "aws4_request"]
            .iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part.as_bytes()));
        hex(&mac(&key, to_sign.as_bytes()))
    }
}

fn parse(text: &str) -> Option<Signature> {
    let rest = text.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let field = |name: &str| {
        rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    let credential = field("Credential")?;
    let mut parts = credential.split('/').map(str::to_owned);
    let (access_key, date, region, service) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next()? == "aws4_request" && parts.next().is_none();
    let signed_headers = field("SignedHeaders")?.split(';').map(str::to_owned).collect();
    whole.then_some(Signature { access_key, date, region, service, signed_headers, signature: field("Signature")? })
}

fn header(request: &Request, name: &str) -> String {
    let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let plain = percent_decode_str(text).decode_utf8_lossy().into_owned();
        utf8_percent_encode(&plain, UNRESERVED).to_string()
    };
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        format!("{}={}", encoded(name), encoded(value))
    };
    let mut pairs: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(pair).collect();
    pairs.sort();
    pairs.join("&")
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// `20260101T000000Z` in milliseconds of Unix time.
fn milliseconds(stamp: &str) -> Option<i64> {
    let number = |from: usize, to: usize| stamp.get(from..to)?.parse::<u8>().ok();
    let year = stamp.get(0..4)?.parse().ok()?;
    let date = Date::from_calendar_date(year, Month::try_from(number(4, 6)?).ok()?, number(6, 8)?).ok()?;
    let time = Time::from_hms(number(9, 11)?, number(11, 13)?, number(13, 15)?).ok()?;
    let form = stamp.len() == 16 && stamp.get(8..9) == Some("T") && stamp.ends_with('Z');
    form.then(|| PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp() * 1000)
}

/// The other way.
fn written(ms: i64) -> String {
    let at = moment(ms);
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// A time as credentials have it: `2026-01-01T00:00:00Z`.
pub(super) fn iso(ms: i64) -> String {
    let basic = written(ms);
    let part = |from: usize, to: usize| basic.get(from..to).unwrap_or_default();
    format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(9, 11), part(11, 13), part(13, 15))
}

/// A time as the `Date` header has it.
pub(super) fn http_date(ms: i64) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let at = moment(ms);
    let day = DAYS.get(usize::from(at.weekday().number_days_from_monday())).copied().unwrap_or_default();
    let month = at.month().to_string();
    let (month, time) = (month.get(..3).unwrap_or_default(), at.time());
    format!(
        "{day}, {:02} {month} {:04} {:02}:{:02}:{:02} GMT",
        at.day(),
        at.year(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn moment(ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The example of AWS's documentation (`get-vanilla-query-order-key-case`, with its keys).
    fn example() -> Request {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                             SignedHeaders=host;x-amz-date, \
                             Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";
        hyper::http::Request::builder()
            .uri("/?Param2=value2&Param1=value1")
            .header("host", "example.amazonaws.com")
            .header("x-amz-date", "20150830T123600Z")
            .header("authorization", authorization)
            .body(Bytes::new())
            .unwrap()
    }

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    #[test]
    fn the_signature_of_the_documentation_is_right() {
        let request = example();
        let signature = Signature::of(&request).unwrap();
        assert_eq!((signature.access_key.as_str(), signature.region.as_str()), ("AKIDEXAMPLE", "us-east-1"));
        signature.check(&request, SECRET).unwrap();
        assert_eq!(signature.check(&request, "other").unwrap_err().code, "InvalidSignatureException");
    }

    #[test]
    fn a_signature_is_good_for_five_minutes_either_way() {
        let request = example();
        let signature = Signature::of(&request).unwrap();
        let at = milliseconds("20150830T123600Z").unwrap();
        assert_eq!(at, 1_440_938_160_000);
        for (off, good) in [(0, true), (299_000, true), (-299_000, true), (301_000, false), (-301_000, false)] {
            assert_eq!(signature.check_time(&request, at + off).is_ok(), good, "{off}");
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let without = hyper::http::Request::new(Bytes::new());
        assert_eq!(Signature::of(&without).unwrap_err().code, "MissingAuthenticationTokenException");
        for text in ["Bearer x", "AWS4-HMAC-SHA256 Credential=a/b/c/d, SignedHeaders=host, Signature=0"] {
            let mut request = hyper::http::Request::new(Bytes::new());
            request.headers_mut().insert("authorization", text.parse().unwrap());
            assert_eq!(Signature::of(&request).unwrap_err().code, "IncompleteSignatureException", "{text}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        let ms = 1_440_938_160_000;
        assert_eq!(written(ms), "20150830T123600Z");
        assert_eq!(iso(ms), "2015-08-30T12:36:00Z");
        assert_eq!(http_date(ms), "Sun, 30 Aug 2015 12:36:00 GMT");
    }
}
