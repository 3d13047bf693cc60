//! The part of a URL behind `?`.

/// Why a query cannot be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadQuery {
    #[error(
        "unknown filter {name:?}; there are tree, verdict, fact, pid, limit, timeline and format"
    )]
    Name { name: String },
    #[error("filter {name:?} wants {wanted}")]
    Value { name: String, wanted: String },
}

/// The names and values of `name=value&...`, decoded.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// `+` is a blank and `%41` is an A; what is not well formed stands for itself.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (decoded, next) = match byte {
            b'%' => hex(after).unwrap_or((byte, after)),
            b'+' => (b' ', after),
            _ => (byte, after),
        };
        bytes.push(decoded);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte that two hexadecimal digits at the beginning of `text` stand for, and what follows them.
fn hex(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some(((high? << 4 | low?) as u8, rest))
}

/// `text` for use in a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for (text, expected) in
            [("a+b", "a b"), ("%41%c3%A9", "Aé"), ("100%", "100%"), ("%4", "%4"), ("%+1", "% 1")]
        {
            assert_eq!(decode(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_text_survives(text: String) {
            proptest::prop_assert_eq!(decode(&encode(&text)), text);
        }

        #[test]
        fn no_query_panics(text: String) {
            for (name, value) in pairs(&text) {
                proptest::prop_assert!(name.len() + value.len() <= 3 * text.len());
            }
        }
    }
}
