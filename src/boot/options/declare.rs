//! The macros that turn declarations into types: the options of `table`, and the choices of `choice`.

/// Declares the options, a row each: `field: Form = default, "key", "help";`.
///
/// Makes `KernelOptions` with the fields, and `Key`, whose variants bear the names of the fields.
macro_rules! options {
    ($($field:ident: $form:ty = $default:expr, $word:literal, $help:literal;)+) => {
        /// The options. They borrow the command line for the names in it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct KernelOptions<'a> {
            $(#[doc = concat!("`", $word, "=`: ", $help, ".")] pub(crate) $field: <$form as Form<'a>>::Value,)+
        }

        /// The keys, named like the fields of [`KernelOptions`].
        #[expect(non_camel_case_types, reason = "the variants bear the names of the fields")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Key {
            $(#[doc = concat!("`", $word, "=`.")] $field,)+
        }

        impl Key {
            /// All of them, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$field),+];

            /// The key as it is typed.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$field => $word,)+ }
            }

            /// What the option does, in a sentence without its full stop.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$field => $help,)+ }
            }

            /// Whether it may be repeated and every occurrence counts.
            pub(super) const fn repeats(self) -> bool {
                match self { $(Self::$field => <$form as Form<'static>>::REPEATS,)+ }
            }

            /// The values that it takes.
            pub const fn valid(self) -> Valid {
                match self { $(Self::$field => <$form as Form<'static>>::VALID,)+ }
            }
        }

        impl Default for KernelOptions<'_> {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl<'a> KernelOptions<'a> {
            /// Sets `key` if the value is valid; else `complain` gets the error.
            pub(super) fn set(&mut self, key: Key, value: &'a [u8], complain: &mut dyn FnMut(ValueError<'a>)) {
                match key {
                    $(Key::$field => {
                        if let Some(new) = <$form as Form<'a>>::read(value, complain) {
                            self.$field = <$form as Form<'a>>::add(self.$field, new, value, complain);
                        }
                    })+
                }
            }

            /// Writes the value of `key` as it is typed; nothing if the option is not given and has no word for that.
            fn write(&self, key: Key, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match key { $(Key::$field => <$form as Form<'a>>::write(self.$field, f),)+ }
            }

            /// Whether `key` has its default value.
            fn is_default(&self, key: Key) -> bool {
                let default = Self::default();
                match key { $(Key::$field => self.$field == default.$field,)+ }
            }
        }
    };
}

/// Defines an enum whose variants are words of the command line.
macro_rules! choices {
    ($(
        $(#[$about:meta])*
        $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal,)+ }
    )+) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_about])* $variant,)+ }

        impl Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    )+};
}

pub(super) use {choices, options};
