//! The part of a URL behind `?`.

/// Why a query cannot be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadQuery {
    #[error("unknown filter {name:?}; there are tree, verdict, fact, pid and limit")]
    Name { name: String },
    #[error("filter {name:?} wants {wanted}")]
    Value { name: String, wanted: &'static str },
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
        let hex = after.get(..2).filter(|_| byte == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let value =
            hex.filter(|h| !h.starts_with('+')).and_then(|h| u8::from_str_radix(h, 16).ok());
        let (decoded, next) = match value {
            Some(value) => (value, &after[2..]),
            None if byte == b'+' => (b' ', after),
            None => (byte, after),
        };
        bytes.push(decoded);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `text` for use in a query.
pub(super) fn encode(text: &str) -> String {
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
