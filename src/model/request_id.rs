//! The name of one request.

/// Names one request, in its answer and in its records: sixteen bytes, written as a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub [u8; 16]);

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d] = [(0, 4), (4, 6), (6, 8), (8, 10)].map(|(from, to)| self.digits(from, to));
        write!(f, "{a}-{b}-{c}-{d}-{}", self.digits(10, 16))
    }
}

impl RequestId {
    fn digits(&self, from: usize, to: usize) -> Digits<'_> {
        Digits(self.0.get(from..to).unwrap_or_default())
    }
}

struct Digits<'b>(&'b [u8]);

impl std::fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_a_uuid() {
        let id = RequestId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "00010203-0405-0607-0809-0a0b0c0d0eff");
    }
}
