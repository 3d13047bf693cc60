//! Enums whose values have names: the closed sets of metrics labels, JSON values and table rows.

/// What every [`named_enum`] has, for code that works on any of them.
pub(crate) trait Named: Copy + 'static {
    /// Every value, in their declared order.
    const VALUES: &'static [Self];

    /// Its name in metrics, JSON and tables.
    fn name(self) -> &'static str;
}

/// An enum of values that have names in metrics, JSON and tables: with `ALL`, `COUNT`, `index`, `as_str` and `from_name`.
macro_rules! named_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        $vis enum $name { $($(#[$vmeta])* $variant,)+ }

        #[allow(dead_code, reason = "not every set needs all of them")]
        impl $name {
            /// Every value, in the order of [`Self::index`].
            $vis const ALL: &'static [$name] = &[$($name::$variant),+];
            /// How many values there are.
            $vis const COUNT: usize = Self::ALL.len();

            /// The place of this value in [`Self::ALL`].
            $vis const fn index(self) -> usize {
                self as usize
            }

            /// Its name in metrics, JSON and tables.
            $vis const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $value),+ }
            }

            /// The value with this name.
            $vis fn from_name(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|value| value.as_str() == name)
            }
        }

        impl $crate::model::Named for $name {
            const VALUES: &'static [$name] = $name::ALL;

            fn name(self) -> &'static str {
                self.as_str()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use named_enum;
