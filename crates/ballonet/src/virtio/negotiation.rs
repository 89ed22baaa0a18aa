//! Feature negotiation: which of the offered features a driver accepts (virtio 1.4, 2.2).

use derive_more::{Display, Error};

use super::spec::{Features, Status};
use super::transport::TransportError;

/// The features that a driver wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The features that the driver implements. It accepts no others, whatever the device offers.
    pub implemented: Features,
    /// Features not to accept although they are implemented: the user's choice.
    pub declined: Features,
    /// Features that need others: each pair is a feature and its prerequisites.
    pub dependencies: &'a [(Features, Features)],
}

/// Why negotiation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error)]
pub enum NegotiationError {
    /// A modern device has to offer `VERSION_1`, and the driver to accept it.
    #[display("VERSION_1 cannot be negotiated: offered {offered}, declined {declined}")]
    NoVersion1 {
        /// The offered features.
        offered: Features,
        /// The features that the user declined.
        declined: Features,
    },
    /// The device does not work with the features accepted.
    #[display("the device refuses features {accepted}, status {status}")]
    Refused {
        /// The accepted features.
        accepted: Features,
        /// The status after `FEATURES_OK` was set.
        status: Status,
    },
    /// A register access failed.
    #[display("{_0}")]
    Transport(TransportError),
}

/// The features to accept: offered, implemented, not declined, and with all that they depend on.
pub(super) fn choose(offered: Features, wanted: &Wanted<'_>, modern: bool) -> Result<Features, NegotiationError> {
    let mut accepted = offered & wanted.implemented & Features::from_bits_retain(!wanted.declined.bits());
    if modern && !accepted.contains(Features::VERSION_1) {
        return Err(NegotiationError::NoVersion1 { offered, declined: wanted.declined });
    }
    // Dropping one may leave another without its prerequisite; each round drops at least one, so this ends.
    loop {
        let unmet = wanted
            .dependencies
            .iter()
            .filter(|(feature, needed)| accepted.intersects(*feature) && !accepted.contains(*needed))
            .fold(Features::empty(), |unmet, (feature, _)| unmet | (*feature & accepted));
        if unmet.is_empty() {
            return Ok(accepted);
        }
        accepted = accepted.difference(unmet);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINE: Features = Features::VERSION_1.union(Features::EVENT_IDX).union(Features::RING_RESET);

    fn wanted(declined: Features) -> Wanted<'static> {
        Wanted { implemented: MINE, declined, dependencies: &[] }
    }

    #[test]
    fn only_implemented_features_are_accepted_though_all_are_offered() {
        let everything = Features::from_bits_retain(u64::MAX);
        assert_eq!(choose(everything, &wanted(Features::empty()), true), Ok(MINE));
    }

    #[test]
    fn declined_features_are_left_out() {
        let accepted = choose(Features::from_bits_retain(u64::MAX), &wanted(Features::EVENT_IDX), true).unwrap();
        assert_eq!(accepted, Features::VERSION_1 | Features::RING_RESET);
    }

    #[test]
    fn a_modern_device_without_version_1_is_refused_and_a_legacy_one_is_not() {
        let offered = Features::EVENT_IDX;
        let error = choose(offered, &wanted(Features::empty()), true).unwrap_err();
        assert_eq!(error, NegotiationError::NoVersion1 { offered, declined: Features::empty() });
        assert_eq!(choose(offered, &wanted(Features::empty()), false), Ok(offered));
        assert!(choose(Features::VERSION_1, &wanted(Features::VERSION_1), true).is_err());
    }

    #[test]
    fn a_feature_is_dropped_with_its_prerequisite_even_transitively() {
        let dependencies = [(Features::IN_ORDER, Features::RING_PACKED), (Features::RING_PACKED, Features::EVENT_IDX)];
        let implemented = Features::VERSION_1 | Features::IN_ORDER | Features::RING_PACKED | Features::EVENT_IDX;
        let wanted = Wanted { implemented, declined: Features::empty(), dependencies: &dependencies };
        assert_eq!(choose(implemented, &wanted, true), Ok(implemented));
        assert_eq!(choose(implemented - Features::EVENT_IDX, &wanted, true), Ok(Features::VERSION_1));
    }

    proptest! {
        #[test]
        fn accepted_features_are_offered_implemented_and_not_declined(offered: u64, implemented: u64, declined: u64) {
            let bits = Features::from_bits_retain;
            let wanted = Wanted { implemented: bits(implemented), declined: bits(declined), dependencies: &[] };
            let accepted = choose(bits(offered), &wanted, false).unwrap().bits();
            prop_assert_eq!(accepted, offered & implemented & !declined);
        }
    }
}
