//! The macro that declares events.

/// Declares events: `/// When it is written.` and `"name" => Name { field: Type, "what it says"; }`.
///
/// Makes a struct of each with an `Event` implementation, and `EVENTS` of all.
macro_rules! events {
    ($(
        #[doc = $about:literal]
        $word:literal => $name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty, $meaning:literal;)* }
    )+) => {
        $(
            #[doc = $about]
            #[derive(Clone, Copy)]
            pub(crate) struct $name $(<$life>)? {
                $(#[doc = $meaning] pub(crate) $field: $type,)*
            }

            impl $(<$life>)? $name $(<$life>)? {
                const SPEC: EventSpec = EventSpec {
                    name: $word,
                    about: $about,
                    fields: &[$(declare::<$type>(stringify!($field), $meaning)),*],
                };
            }

            impl $(<$life>)? Event for $name $(<$life>)? {
                fn name(&self) -> &'static str {
                    $word
                }

                fn write(&self, object: &mut Object<'_>) {
                    $(self.$field.write(stringify!($field), object);)*
                }
            }
        )+

        /// The events above.
        pub(super) const EVENTS: &[EventSpec] = &[$($name::SPEC),+];
    };
}

pub(super) use events;
