//! The layout of every record, read from `d-scripts/wire.d` with dtrace-parser: the one definition of the wire.

use std::sync::LazyLock;

use dtrace_parser::{BitWidth, DataType, File, Integer, Sign};

use super::record::Kind;

/// The text of `d-scripts/wire.d`.
pub const WIRE_D: &str = include_str!("../../d-scripts/wire.d");

/// No record has more fields.
pub const MAX_FIELDS: usize = 6;

/// One field: an integer, its range and its notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Printed with %x; otherwise with %d.
    pub hex: bool,
    /// A minus sign is allowed.
    pub signed: bool,
    /// The largest value; for signed fields the smallest is `-max - 1`.
    pub max: u64,
}

/// The fields of one kind of record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The kind.
    pub kind: Kind,
    /// How many fields follow the letter.
    pub len: usize,
    fields: [Field; MAX_FIELDS],
}

impl Layout {
    /// The fields in their order on the line.
    #[inline]
    pub fn fields(&self) -> &[Field] {
        self.fields.get(..self.len).unwrap_or_default()
    }
}

/// The layouts by the letter that begins the line.
pub struct Schema([Option<Layout>; 128]);

impl Schema {
    /// The layout of the records that begin with `letter`.
    #[inline]
    pub fn layout(&self, letter: u8) -> Option<&Layout> {
        self.0.get(letter as usize)?.as_ref()
    }

    fn read(text: &str) -> Result<Schema, String> {
        let file = File::try_from(text).map_err(|e| e.to_string())?;
        let provider = file.providers().first().ok_or("no provider")?;
        let mut schema = Schema([None; 128]);
        for probe in &provider.probes {
            let kind =
                Kind::from_word(&probe.name).ok_or(format!("unknown probe {}", probe.name))?;
            let len = probe.types.len();
            if len > MAX_FIELDS {
                return Err(format!("{} has more than {MAX_FIELDS} fields", probe.name));
            }
            let mut fields = [Field { hex: false, signed: false, max: 0 }; MAX_FIELDS];
            for (field, data_type) in fields.iter_mut().zip(&probe.types) {
                *field = Field::of(data_type).ok_or(format!("{} has a string", probe.name))?;
            }
            if let Some(layout) = schema.0.get_mut(usize::from(kind.letter())) {
                *layout = Some(Layout { kind, len, fields });
            }
        }
        match Kind::ALL.iter().find(|k| schema.layout(k.letter()).is_none()) {
            Some(kind) => Err(format!("no probe {kind}")),
            None => Ok(schema),
        }
    }
}

impl Field {
    /// Whether its numbers usually have more than eight digits: time stamps.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.max > u64::from(u32::MAX)
    }

    fn of(data_type: &DataType) -> Option<Field> {
        let (integer, hex) = match data_type {
            DataType::Integer(integer) => (integer, false),
            DataType::Pointer(integer) => (integer, true),
            DataType::String => return None,
        };
        let Integer { sign, width } = integer;
        let bits = match width {
            BitWidth::Bit8 => 8,
            BitWidth::Bit16 => 16,
            BitWidth::Bit32 => 32,
            BitWidth::Bit64 | BitWidth::Pointer => 64,
        };
        let signed = *sign == Sign::Signed;
        Some(Field { hex, signed, max: u64::MAX >> (64 - bits + u32::from(signed)) })
    }
}

/// The schema that this build was made with.
///
/// ```
/// use kqproc_exporter::wire::record::Kind;
/// use kqproc_exporter::wire::schema::SCHEMA;
///
/// let create = SCHEMA.layout(b'C').expect("C begins a record");
/// assert_eq!(create.kind, Kind::Create);
/// assert!(create.fields()[5].hex, "the flags of rfork(2)");
/// ```
#[allow(clippy::unreachable, reason = "wire.d is part of the build, and every test reads it")]
pub static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::read(WIRE_D).unwrap_or_else(|e| unreachable!("wire.d is part of the build: {e}"))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_layout() {
        for kind in Kind::ALL {
            assert_eq!(SCHEMA.layout(kind.letter()).map(|l| l.kind), Some(*kind));
        }
        assert!(SCHEMA.layout(b'Z').is_none());
        assert!(SCHEMA.layout(0xff).is_none());
    }

    #[test]
    fn ranges_come_from_the_types() {
        let fields = SCHEMA.layout(b'C').expect("create").fields();
        assert_eq!(fields[0], Field { hex: false, signed: false, max: u64::MAX });
        assert_eq!(fields[2], Field { hex: false, signed: true, max: i32::MAX as u64 });
        assert_eq!(fields[5], Field { hex: true, signed: false, max: u32::MAX as u64 });
    }

    #[test]
    fn a_definition_that_lacks_a_kind_is_refused() {
        assert!(Schema::read("provider kqproc { probe begin(uint64_t); };").is_err());
    }
}
