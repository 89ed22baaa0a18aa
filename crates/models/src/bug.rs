//! Bugs that a device can have, one at a time. The device tester must find each.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    // Registers.
    /// A reset leaves ACKNOWLEDGE in the status.
    ResetKeepsStatus,
    /// After a reset `queue_enable` still shows queues as enabled.
    ResetKeepsQueueEnable,
    /// A reset keeps the queue sizes that the driver set.
    ResetKeepsQueueSize,
    /// A reset keeps the vectors.
    ResetKeepsVectors,
    /// After `FEATURES_OK` fewer features are offered.
    FeaturesChange,
    /// Feature words beyond the second repeat the first two.
    FeatureWordsRepeat,
    /// `FEATURES_OK` sticks even if features were accepted that were not offered.
    TakesUnofferedFeatures,
    /// `FEATURES_OK` does not stick unless all features are accepted.
    WantsAllFeatures,
    /// Selectors of absent queues show queue 0.
    AbsentQueueIsQueue0,
    /// A smaller queue size is ignored.
    IgnoresQueueSize,
    /// All queues share the address registers.
    SharedQueueAddresses,
    /// `queue_enable` always reads 0.
    QueueEnableReads0,
    /// A vector beyond the table is accepted.
    TakesAbsentVector,
    /// A vector reads back as the one after it.
    VectorReadsBackWrong,
    /// `config_generation` counts reads.
    GenerationCountsReads,
    /// `actual` keeps its low 16 bits only.
    ActualIsCut,
    /// A write of `actual` changes `num_pages` too.
    ActualIsTarget,
    /// `poison_val` is not stored.
    PoisonIsDropped,
    /// Narrow reads of a configuration field return its low byte.
    ConfigurationInWordsOnly,
    /// The window in configuration space reads 0.
    AccessReads0,
    /// The window in configuration space drops writes.
    AccessDropsWrites,

    /// `config_generation` stays as it is when the host sets a target.
    GenerationStays,

    // Interrupts.
    /// A new target does not interrupt.
    TargetsAreSilent,
    /// Reading the ISR byte does not clear it.
    IsrStays,
    /// The ISR byte stays 0.
    IsrIsNeverSet,
    /// The ISR byte has an undefined bit set.
    IsrHasJunk,
    /// The queue bit of the ISR byte is set at `DRIVER_OK`.
    IsrIsSetEarly,
    /// Interrupt Status is never set.
    InterruptStatusIsNeverSet,
    /// Used buffers send no message.
    MessagesAreLost,
    /// Used buffers raise the vector of configuration changes.
    QueuesRaiseConfigVector,
    /// Queues without a vector raise vector 0.
    NoVectorIsVector0,
    /// Interrupt suppression by the driver is ignored.
    IgnoresSuppression,
    /// With `EVENT_IDX` only the first buffer interrupts.
    EventIndexIsMissed,
    /// A message is sent after each reset.
    InterruptsAfterReset,

    // Rings.
    /// Each used entry is written twice.
    UsesTwice,
    /// Used entries name the next descriptor.
    UsedIdIsOff,
    /// The second of several buffers comes back first.
    OutOfOrder,
    /// A readable buffer is written.
    WritesReadable,
    /// The available ring's flags, or the driver's event suppression structure, are written.
    WritesDriverArea,
    /// The byte behind the used ring, or the device's event suppression structure, is written.
    WritesBehindRing,
    /// Available buffers are used as soon as their queue is enabled.
    UsesBeforeDriverOk,
    /// Kicks are served before `DRIVER_OK`.
    ServesEarlyKicks,
    /// Buffers that were available before `DRIVER_OK` are skipped.
    ForgetsEarlyBuffers,
    /// The device suppresses kicks and then sleeps.
    AsksForNoKicks,
    /// The device's flags for kick suppression are undefined.
    SuppressionIsJunk,
    /// A request of several descriptors is never used.
    LosesChains,
    /// A request with a table is never used.
    LosesTables,
    /// A buffer at an odd address is never used.
    LosesUnaligned,
    /// A request of more than 64 frames is never used.
    LosesLarge,
    /// A queue of one entry is not served.
    LosesRingsOfOne,
    /// A queue whose size is not a power of two is not served.
    LosesOddRings,
    /// After 40,000 requests a queue is no longer served.
    StopsAtTheWrap,
    /// A kick without a buffer is an error that needs a reset.
    NeedsResetForNothing,

    // The balloon.
    /// The statistics buffer always comes back at once.
    StatisticsComeBack,
    /// The statistics buffer is kept, even if the host asks for statistics.
    StatisticsAreKept,
    /// Reports of free pages are never used.
    LosesReports,
    /// With `MUST_TELL_HOST` deflate requests are never used.
    LosesToldDeflates,
    /// With `PAGE_POISON` inflate requests are never used.
    LosesPoisoned,

    // Resets of single queues.
    /// `queue_reset` reads 1 permanently.
    QueueResetNeverEnds,
    /// A reset of one queue stops all.
    QueueResetStopsAll,
    /// A queue that was reset is not served again.
    ResetQueueStaysDead,

    // The entropy device.
    /// Buffers come back without a byte.
    RandomIsEmpty,
    /// Buffers come back as they were.
    RandomIsNotWritten,
    /// Every buffer gets the same bytes.
    RandomRepeats,
    /// The used length is one more than what was written.
    RandomClaimsTooMuch,
    /// A reset starts the sequence over.
    RandomStartsOver,

    // The block device.
    /// `blk_size` is not a power of two.
    BlockSizeIsOdd,
    /// `writeback` is neither 0 nor 1.
    CacheModeIsJunk,
    /// A read of several sectors returns the first one last.
    SectorsAreSwapped,
    /// A read behind the last sector succeeds.
    ReadsPastTheEnd,
    /// A device that offers RO writes.
    WritesReadOnly,
    /// Writes succeed and are lost.
    DropsWrites,
    /// A flush fails.
    FlushFails,
    /// Requests of unknown types succeed.
    UnknownRequestsAreDone,
    /// The identification is not padded, but the used length counts padding.
    IdentificationIsShort,
    /// The used length does not count the status.
    UsedLengthLeavesStatusOut,

    // The console.
    /// `max_nr_ports` is 0.
    ConsoleHasNoPort,
    /// The used length counts sent bytes as written.
    SentIsWritten,
    /// A buffer of one byte is never used.
    LosesSingleBytes,
    /// Receive buffers come back empty.
    ReceivesNothing,
    /// No port is announced.
    PortsAreNotAnnounced,

    // The network device.
    /// `mac` is a multicast address.
    AddressIsMulticast,
    /// `mtu` is less than 68.
    MtuIsSmall,
    /// `status` has an undefined bit.
    LinkStatusHasJunk,
    /// Frames of more than 1400 bytes are never used.
    LosesLongFrames,
    /// Unknown commands are acknowledged.
    UnknownCommandsAreAcknowledged,
    /// Received frames have a `num_buffers` of 0.
    ReceivedHeadersAreEmpty,

    // The legacy interface.
    /// The configuration does not move when MSI-X is turned on.
    LegacyConfigurationStays,
    /// Page 0 is ignored.
    LegacyPage0IsIgnored,
    /// The page of a queue reads as the next one.
    LegacyPageReadsBackWrong,

    // MMIO.
    /// `InterruptACK` clears every bit.
    AckClearsAll,
    /// `QueueReady` 0 is ignored.
    QueueStaysReady,
    /// A reset leaves `InterruptStatus`.
    ResetKeepsInterruptStatus,
    /// Absent shared memory has length 0.
    AbsentMemoryIsEmpty,
    /// `DeviceFeaturesSel` is ignored once it was 0.
    SelectorIsIgnored,
}
