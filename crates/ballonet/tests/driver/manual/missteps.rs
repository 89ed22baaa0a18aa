//! The model accepts correct use, and reports each misstep with its clause.

use super::*;

#[test]
fn a_correct_driver_causes_no_findings() {
    let hand = Hand::new(Slip::None);
    let machine = hand.machine.clone();
    assert_eq!(hand.run(), [""; 0]);
    assert_eq!(machine.vectors(), [("hand".to_string(), 3)], "one for the target, one for each request");
}

#[test]
fn the_model_names_the_clause_of_each_misstep() {
    use Slip::*;
    let slips = [
        (NoReset, "INIT-02"),
        (ResetNotAwaited, "PCI-COMMON-05"),
        (StatusDropsBits, "STATUS-02"),
        (StatusSkipsDriver, "INIT-01"),
        (FeatureNotOffered, "FEAT-01"),
        (FeatureReserved, "FEAT-05"),
        (HighWordForgotten, "RSVD-01"),
        (FeaturesOkNotRead, "INIT-09"),
        (FeaturesAfterOk, "INIT-08"),
        (ConfigDuringNegotiation, "INIT-06"),
        (HighWordForgotten, "INIT-04"),
        (WideStatus, "PCI-ACC-01"),
        (WideVector, "PCI-ACC-02"),
        (NarrowFeatures, "PCI-ACC-03"),
        (ReadOnlyField, "PCI-COMMON-01"),
        (OddQueueSize, "PCI-COMMON-03"),
        (AddressHalfMissing, "PCI-COMMON-04"),
        (AddressMisaligned, "SPLIT-LAY-01"),
        (VectorBeyondTable, "PCI-MSIX-04"),
        (VectorNotRead, "PCI-MSIX-05"),
        (VectorAfterEnable, "PCI-COMMON-04"),
        (EnableZero, "PCI-COMMON-06"),
        (UsedRingDirty, "SPLIT-ASUP-01"),
        (KickBeforeDriverOk, "INIT-14"),
        (KickWide, "PCI-NOTIF-01"),
        (KickWrongValue, "PCI-NOTIF-03"),
        (NarrowKickWithData, "PCI-NOTIF-02"),
        (WrongKickWithData, "PCI-NOTIF-04"),
        (WrongProgress, "PACKED-DESC-03"),
        (WrongKickByName, "PCI-NOTIF-05"),
        (WrongKickWithDataByName, "PCI-NOTIF-06"),
        (NoBusMaster, "PCI-MASTER"),
        (ActualByBytes, "BAL-ACTUAL"),
        (TargetWithoutGeneration, "CFG-03"),
        (LongRequest, "BAL-LONG"),
        (PfnOutsideRam, "BAL-OP-01"),
        (PfnNotTaken, "BAL-OP-01"),
        (InflateTwice, "BAL-OP-01"),
        (DeflateOfNothing, "BAL-OP-10"),
        (PageTouched, "BAL-OP-09"),
        (BufferChanged, "CLEAN-01"),
        (BufferNotDma, "RSVD-05"),
        (ReleaseBeforeReset, "CLEAN-02"),
        (BarWithDecodeOn, "PCI-BAR"),
        (StatusRegisterCleared, "PCI-STATUS"),
        (CapabilityWritten, "PCI-CAP-08"),
        (StatisticsMissing, "BAL-STATS-02"),
        (NoKick, "SPLIT-ASUP-04"),
        (StatisticsTwice, "BAL-STATS-01"),
        (StatisticsOdd, "BAL-STATS-05"),
        (StatisticsOtherTags, "BAL-STATS-08"),
        (IsrInMsixMode, "PCI-ISR-01"),
        (WriteAfterFailed, "STATUS-03"),
        (ConfigBeyondOffer, "CFG-04"),
        (QueueMissing, "INIT-10"),
        (HoleRead, "PCI-ACC"),
        (HoleWritten, "PCI-ACC"),
        (MapElsewhere, "PCI-MAP"),
        (VectorMasked, "PCI-MSIX"),
        (MessageUnmasked, "PCI-MSIX"),
        (TableNarrow, "PCI-MSIX"),
        (QueueResetUnaccepted, "QRST-01"),
        (OddPfns, "BAL-PFNS"),
        (ReportOfOthers, "RSVD-05"),
        (ReportTwice, "BAL-REPORT-03"),
        (ReportOfParts, "RSVD-05"),
        (Ballooned, "BAL-OP-06"),
        (Deflating, "BAL-OP-07"),
    ];
    for (slip, clause) in slips {
        let found = Hand::new(slip).run();
        assert!(found.contains(&clause), "{slip:?} should break {clause}; found {found:?}");
    }
}
