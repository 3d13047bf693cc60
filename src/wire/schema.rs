//! The layout of every record, read from `d-scripts/wire.d` with dtrace-parser: the one definition of the wire.

use std::sync::LazyLock;

use dtrace_parser::{BitWidth, DataType, File, Integer, Sign};

use super::record::Kind;

pub(crate) const WIRE_D: &str = include_str!("../../d-scripts/wire.d");

/// No record has more fields, but for [`Kind::Copyout`].
pub(crate) const MAX_FIELDS: usize = 12;

/// Events on a line of [`Kind::Copyout`] (13.2 `kern_event.c`, `KQ_NEVENTS`), and the fields before them and of each.
pub const EVENTS: usize = 8;
const BEFORE_EVENTS: usize = 5;
pub(super) const EVENT_FIELDS: usize = 5;
/// The fields of a copyout: with the consumer's pid behind the events.
pub(super) const COPYOUT_FIELDS: usize = BEFORE_EVENTS + EVENTS * EVENT_FIELDS + 1;

/// One field: an integer, its range and its notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Printed with %x; otherwise with %d.
    pub hex: bool,
    pub(crate) signed: bool,
    /// The largest value; for signed fields the smallest is `-max - 1`.
    pub max: u64,
}

/// The fields of one kind of record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The kind.
    pub kind: Kind,
    /// The fields that follow the letter, in their order.
    pub fields: Vec<Field>,
}

impl Layout {
    /// Whether a record of this kind may have so many fields.
    pub fn takes(&self, count: usize) -> bool {
        let most = self.fields.len();
        count == most || (self.kind.is_of_consumer() && count + 1 == most)
    }
}

/// The layouts by the letter that begins the line.
pub struct Schema([Vec<Layout>; 128]);

impl Schema {
    /// The layouts of the records that begin with `letter`, the usual one first. They differ in their number of fields.
    #[inline]
    pub fn layouts(&self, letter: u8) -> &[Layout] {
        self.0.get(usize::from(letter)).map_or(&[], Vec::as_slice)
    }

    fn read(text: &str) -> Result<Schema, String> {
        let file = File::try_from(text).map_err(|e| e.to_string())?;
        let provider = file.providers().first().ok_or("no provider")?;
        let mut schema = Schema([const { Vec::new() }; 128]);
        for probe in &provider.probes {
            let kind =
                Kind::from_name(&probe.name).ok_or(format!("unknown probe {}", probe.name))?;
            let most = if kind == Kind::Copyout { COPYOUT_FIELDS } else { MAX_FIELDS };
            if probe.types.len() > most {
                return Err(format!("{} has more than {most} fields", probe.name));
            }
            let fields: Option<Vec<Field>> = probe.types.iter().map(Field::of).collect();
            let fields = fields.ok_or(format!("{} has a string", probe.name))?;
            if let Some(layouts) = schema.0.get_mut(usize::from(kind.letter())) {
                layouts.push(Layout { kind, fields });
            }
        }
        let is_there =
            |kind: Kind| schema.layouts(kind.letter()).iter().any(|layout| layout.kind == kind);
        match Kind::ALL.iter().find(|kind| !is_there(**kind)) {
            Some(kind) => Err(format!("no probe {kind}")),
            None => Ok(schema),
        }
    }
}

impl Field {
    /// Whether its numbers usually have more than eight digits: time stamps.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
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
/// let create = SCHEMA.layouts(b'C').first().expect("C begins a record");
/// assert_eq!(create.kind, Kind::Create);
/// assert!(create.fields[5].hex, "the flags of rfork(2)");
/// ```
#[allow(clippy::unreachable, reason = "wire.d is part of the build, and every test reads it")]
pub static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::read(WIRE_D).unwrap_or_else(|e| unreachable!("wire.d is part of the build: {e}"))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_has_two_layouts() {
        for letter in 0..128 {
            for count in 0..=COPYOUT_FIELDS {
                assert!(SCHEMA.layouts(letter).iter().filter(|l| l.takes(count)).count() <= 1);
            }
        }
        assert!(SCHEMA.layouts(b'Z').is_empty() && SCHEMA.layouts(0xff).is_empty());
    }

    #[test]
    fn ranges_come_from_the_types() {
        let fields = &SCHEMA.layouts(b'C')[0].fields;
        assert_eq!(fields[0], Field { hex: false, signed: false, max: u64::MAX });
        assert_eq!(fields[2], Field { hex: false, signed: true, max: i32::MAX as u64 });
        assert_eq!(fields[5], Field { hex: true, signed: false, max: u32::MAX as u64 });
    }

    #[test]
    fn a_definition_that_lacks_a_kind_is_refused() {
        assert!(Schema::read("provider kqproc { probe begin(uint64_t); };").is_err());
    }
}
