//! Command lines: the options that are read, and the warnings about invalid words.

use proptest::prelude::*;

use super::form::ValueError;
use super::*;
use ballonet::balloon::RequestShape;
use ballonet::balloon::wire::FEATURES;
use ballonet::virtio::{InterruptMode, RingFormat, TransportKind};
use ballonet_check::HostAction;

#[test]
fn an_invalid_word_ends_an_unattended_run() {
    let refusal = |line: &str| KernelOptions::refusal(line.as_bytes()).map(|warning| warning.to_string());
    for line in
        ["mode=check", "mode=bench irq=intx irq=poll", "mdoe=serve nonsense irq=psychic", "quiet", "nocheck", ""]
    {
        assert_eq!(refusal(line), None, "{line}");
    }
    for (line, word) in [
        ("mode=chekc", "`chekc`"),
        ("quiet mode=", "``"),
        ("quiet mdoe=check", "`mdoe`"),
        ("mode=check quiet", "`quiet`"),
        ("mode", "`mode`"),
        ("mode check", "`mode`"),
        ("quiet check", "`check`"),
        ("--bench", "`--bench`"),
        ("mode:check", "`mode:check`"),
        ("irq=psychic mode=bench", "`psychic`"),
        ("mode=check chekcs=isr-*", "`chekcs`"),
        ("mode=check features=-nonsense", "`-nonsense`"),
    ] {
        assert!(refusal(line).is_some_and(|reason| reason.contains(word)), "{line}: {:?}", refusal(line));
    }
}

fn parse(line: &str) -> (KernelOptions<'_>, Vec<Warning<'_>>) {
    let mut warnings = Vec::new();
    let options = KernelOptions::parse(line.as_bytes(), &mut |warning| warnings.push(warning));
    (options, warnings)
}

#[test]
fn an_empty_line_means_the_defaults() {
    for line in ["", " ", " \t \n"] {
        assert_eq!(parse(line), (KernelOptions::default(), vec![]));
    }
    let defaults = KernelOptions::default();
    assert_eq!((defaults.mode, defaults.irq, defaults.log), (Mode::Serve, None, LogFormat::Text));
}

#[test]
fn every_option_is_read() {
    let line = "mode=check irq=msix-shared  transport=modern access=window ring=split features=-event_idx,-ring_packed \
                report-age=100 report-threshold=16M report-budget=2G oom-cooldown=200 work=churn:3M checks=isr-* device=rng writes=on host=pause,target poison=0xa5 queue-size=7 request=9x10 cpus=3 affinity=boot hotplug=prompt poweroff=deflate \
                virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=1M@0xd0000000:16:2 \
                tap=14 log=json term=ansi screen=off verbose=on test=vectors::stack list=on";
    let expected = KernelOptions {
        mode: Mode::Check,
        irq: Some(InterruptMode::Shared),
        transport: Some(TransportKind::Modern),
        access: AccessChoice::Window,
        ring: Some(RingFormat::Split),
        declined_features: 1 << 29 | 1 << 34,
        report_age: 100,
        report_threshold: 16 << 20,
        report_budget: 2 << 30,
        oom_cooldown: 200,
        work: Some(WorkChoice { kind: WorkKind::Churn, size: 3 << 20 }),
        poison: Some(0xa5),
        queue_size: 7,
        request: RequestShape::new(9, 10),
        cpus: Some(3),
        affinity: AffinityChoice::Boot,
        hotplug: HotplugChoice::Prompt,
        poweroff: PoweroffChoice::Deflate,
        checks: Some("isr-*"),
        device: "rng",
        writes: true,
        host: HostActions::NONE.with(HostAction::Pause).with(HostAction::Target),
        tap: TapVersion::V14,
        log: LogFormat::Json,
        term: Terminal::Ansi,
        screen: ScreenChoice::Off,
        mmio_devices: parse("virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=1M@0xd0000000:16:2").0.mmio_devices,
        verbose: true,
        test: Some("vectors::stack"),
        list: true,
    };
    assert_eq!(parse(line), (expected, vec![]));
}

#[test]
fn every_word_of_every_choice_is_valid() {
    for &key in Key::ALL {
        for value in key.valid().choices() {
            let line = format!("{key}={value}");
            assert_eq!(parse(&line).1, [], "{line}");
        }
        assert!(key.valid().choices().next().is_some() || !key.valid().others().is_empty(), "{key}");
    }
}

#[test]
fn options_that_are_written_read_back() {
    for line in [
        "",
        "mode=check irq=poll report-age=0 report-budget=1536M poison=0x00 checks=isr-*,-a host=target,restore",
        "ring=split request=1x2 cpus=4096 verbose=on features=-event_idx,-in_order work=steady:1025",
    ] {
        let (options, _) = parse(line);
        let written = options.to_string();
        assert_eq!(parse(&written), (options, vec![]), "{line}: {written}");
    }
    assert_eq!(parse("list=off report-age=250 mode=serve").0.to_string(), "", "defaults are not written");
    assert_eq!(parse("work=verify:2048K irq=intx").0.to_string(), "irq=intx work=verify:2M");
}

#[test]
fn every_feature_has_a_bit_of_its_own() {
    let list: Vec<_> = FEATURES.iter().map(|(name, _)| format!("-{name}")).collect();
    let line = format!("features={}", list.join(","));
    let (options, warnings) = parse(&line);
    assert_eq!(warnings, []);
    assert_eq!(options.declined_features.count_ones() as usize, FEATURES.len());
}

#[test]
fn an_unknown_key_is_quoted_and_the_valid_ones_are_listed() {
    let (options, warnings) = parse("colour=red mode=bench");
    assert_eq!(options.mode, Mode::Bench);
    assert_eq!(warnings, [Warning::UnknownKey(b"colour")]);
    assert_eq!(
        warnings[0].to_string(),
        "unknown option `colour`; valid: mode, irq, transport, access, ring, features, queue-size, request, report-age, \
         report-threshold, report-budget, oom-cooldown, poison, work, cpus, affinity, hotplug, poweroff, checks, device, writes, host, \
         tap, log, term, screen, virtio_mmio.device, verbose, test, list"
    );
}

#[test]
fn an_invalid_value_is_quoted_and_the_default_stays() {
    let (options, warnings) = parse("irq=msi verbose=yes test= mode=");
    assert_eq!(options, KernelOptions::default());
    assert_eq!(warnings.len(), 4);
    assert_eq!(
        warnings[0].to_string(),
        "option `irq`: invalid value `msi`; valid: msix, auto, msix-shared, intx, poll"
    );
    assert_eq!(warnings[1].to_string(), "option `verbose`: invalid value `yes`; valid: off, on");
}

#[test]
fn invalid_sizes_and_shapes_are_quoted() {
    for value in ["0", "32769", "65536", "-1", "+1", "", "ten", "99999999999999999999"] {
        let line = format!("queue-size={value}");
        let (options, warnings) = parse(&line);
        assert_eq!((options, warnings.len()), (KernelOptions::default(), 1), "{line}");
        assert!(warnings[0].to_string().ends_with("valid: 1 to 32768"), "{}", warnings[0]);
    }
    for value in ["256", "0x1", "1x0", "257x1", "1x65", "256x", "x2", "2x2x2", "2X2"] {
        let line = format!("request={value}");
        let (options, warnings) = parse(&line);
        assert_eq!((options, warnings.len()), (KernelOptions::default(), 1), "{line}");
        let message = warnings[0].to_string();
        assert!(message.ends_with("valid: auto, FRAMESxDESCRIPTORS, 1 to 256 by 1 to 64"), "{message}");
    }
    assert_eq!(parse("queue-size=32768 request=256x64").1, []);
    assert_eq!(parse("request=auto"), (KernelOptions::default(), vec![]));
}

#[test]
fn invalid_numbers_of_cpus_are_quoted() {
    for value in ["0", "4097", "-1", "+1", "", "two", "4294967297"] {
        let line = format!("cpus={value}");
        let (options, warnings) = parse(&line);
        assert_eq!((options, warnings.len()), (KernelOptions::default(), 1), "{line}");
        assert!(warnings[0].to_string().ends_with("valid: all, 1 to 4096"), "{}", warnings[0]);
    }
    assert_eq!(parse("cpus=4096"), (KernelOptions { cpus: Some(4096), ..KernelOptions::default() }, vec![]));
    assert_eq!(parse("cpus=all"), (KernelOptions::default(), vec![]));
}

#[test]
fn a_poison_is_a_byte_in_hexadecimal_or_off() {
    for (value, byte) in
        [("off", None), ("0x00", Some(0)), ("0x5A", Some(0x5a)), ("0xff", Some(0xff)), ("0x7", Some(7))]
    {
        assert_eq!(
            parse(&format!("poison={value}")),
            (KernelOptions { poison: byte, ..KernelOptions::default() }, vec![])
        );
    }
    for value in ["", "0x", "0x100", "0x+1", "5a", "-1", "on"] {
        let line = format!("poison={value}");
        let (options, warnings) = parse(&line);
        assert_eq!((options.poison, warnings.len()), (None, 1), "{line}");
        assert!(warnings[0].to_string().ends_with("valid: off, 0x00 to 0xff"), "{}", warnings[0]);
    }
}

#[test]
fn features_that_are_unknown_or_not_declined_are_quoted() {
    let (options, warnings) = parse("features=-event_idx,ring_reset,-EVENT_IDX,,-in_order");
    assert_eq!(options.declined_features, 1 << 29 | 1 << 35);
    let items: [&[u8]; 3] = [b"ring_reset", b"-EVENT_IDX", b""];
    let warning = |item| Warning::InvalidValue { key: Key::declined_features, error: ValueError::Feature(item) };
    assert_eq!(warnings, items.map(warning));
    assert!(warnings[0].to_string().starts_with(
        "option `features`: invalid item `ring_reset`; valid: `-` and one of ring_reset, must_tell_host, "
    ));
    assert_eq!(parse("features="), (KernelOptions::default(), vec![]));
}

#[test]
fn invalid_sizes_and_times_are_quoted() {
    let (options, warnings) = parse("report-age=3600001 report-threshold=2X report-budget= report-age=-1");
    assert_eq!(options, KernelOptions::default());
    assert_eq!(warnings.len(), 5, "one is repeated");
    assert_eq!(warnings[1].to_string(), "option `report-threshold`: unknown unit `X`; valid: K, M, G and T");
}

#[test]
fn invalid_programs_and_cooldowns_are_quoted() {
    for line in ["work=sawtooth", "work=saw:1M", "work=steady:0", "work=:", "oom-cooldown=-1", "oom-cooldown=3600001"] {
        let (options, warnings) = parse(line);
        assert_eq!((options, warnings.len()), (KernelOptions::default(), 1), "{line}");
    }
    assert_eq!(
        parse("work=saw:1M").1[0].to_string(),
        "option `work`: invalid program `saw:1M`; valid: sawtooth:SIZE, steady:SIZE, churn:SIZE, verify:SIZE"
    );
}

#[test]
fn the_last_valid_value_of_a_key_holds() {
    let (options, warnings) = parse("ring=split ring=packed ring=round");
    assert_eq!(options.ring, Some(RingFormat::Packed));
    let repeated = Warning::Repeated(Key::ring);
    assert_eq!(
        warnings,
        [repeated, repeated, Warning::InvalidValue { key: Key::ring, error: ValueError::Invalid(b"round") }]
    );
}

#[test]
fn a_word_without_an_equals_sign_is_quoted() {
    let (_, warnings) = parse("quiet =x");
    assert_eq!(warnings, [Warning::NotAnOption(b"quiet"), Warning::UnknownKey(b"")]);
}

#[test]
fn a_value_may_hold_an_equals_sign() {
    assert_eq!(parse("test=a=b").0.test, Some("a=b"));
}

#[test]
fn warnings_escape_bytes_and_cut_long_words() {
    let line = [&b"\xff\x1b="[..], &[b'x'; 2000]].concat();
    let mut warnings = Vec::new();
    KernelOptions::parse(&line, &mut |warning| warnings.push(warning.to_string()));
    assert!(warnings[0].starts_with("unknown option `\\xff\\x1b`;"));
    warnings.clear();
    KernelOptions::parse(&[b'x'; 2000], &mut |warning| warnings.push(warning.to_string()));
    assert!(warnings[0].contains("xxx...` is not") && warnings[0].len() < 400);
}

proptest! {
    #[test]
    fn any_line_gives_options_and_warnings_that_can_be_shown(line: Vec<u8>) {
        KernelOptions::parse(&line, &mut |warning| drop(warning.to_string()));
    }

    #[test]
    fn known_keys_with_any_values_are_known(
        words in prop::collection::vec((prop::sample::select(Key::ALL), "[-,=a-z_]{0,12}"), 0..20),
    ) {
        let line: String = words.iter().map(|(key, value)| format!("{key}={value} ")).collect();
        let (_, warnings) = parse(&line);
        prop_assert!(!warnings.iter().any(|warning| matches!(warning, Warning::UnknownKey(_))));
    }
}
