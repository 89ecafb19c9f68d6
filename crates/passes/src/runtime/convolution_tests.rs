use super::*;

/// Channels in and out, elements of the window, windows, and microseconds measured in float and on codes.
const MEASURED: [(usize, usize, usize, usize, f64, f64); 20] = [
    (1, 1, 256, 10961, 798.0, 4134.0),
    (1, 8, 256, 10961, 786.0, 539.0),
    (1, 16, 256, 10961, 792.0, 551.0),
    (3, 4, 9, 3844, 43.0, 158.0),
    (8, 1, 25, 3600, 214.0, 261.0),
    (8, 8, 9, 3844, 99.0, 170.0),
    (8, 8, 117, 3844, 1051.0, 517.0),
    (8, 32, 9, 3844, 209.0, 107.0),
    (8, 33, 9, 3844, 334.0, 259.0),
    (32, 1, 9, 3844, 328.0, 251.0),
    (32, 8, 9, 3844, 324.0, 245.0),
    (32, 18, 9, 3844, 638.0, 349.0),
    (32, 24, 9, 3844, 638.0, 219.0),
    (32, 32, 9, 3844, 637.0, 210.0),
    (33, 1, 9, 3844, 381.0, 273.0),
    (33, 8, 9, 3844, 582.0, 263.0),
    (64, 3, 9, 3844, 623.0, 438.0),
    (128, 8, 9, 900, 300.0, 176.0),
    (128, 20, 9, 900, 602.0, 168.0),
    (256, 1, 9, 900, 589.0, 329.0),
];

/// Fitted to these times, and more of the same machine.
fn fitted() -> ConvolutionTimes {
    ConvolutionTimes {
        float: Direct { start: 3000.0, product: 0.0178, output: 0.25, pointer: 0.0 },
        codes: Direct { start: 5000.0, product: 0.0053, output: 0.45, pointer: 0.0 },
        gather_float: 0.31,
        single_window: 10.0,
        single_element: 1.45,
    }
}

#[test]
fn times_are_near_those_measured() {
    let times = fitted();
    let mut off = Vec::new();
    for (channels, outputs, window, positions, float, codes) in MEASURED {
        let conv = Convolution::of_sizes(outputs, channels, window);
        let results = (positions * outputs) as f64;
        for (what, found, measured) in [
            ("float", conv.in_float(&times, results) / 1e3, float),
            ("codes", conv.on_codes(&times, results) / 1e3, codes),
        ] {
            if !(0.6..1.6).contains(&(found / measured)) {
                off.push(format!("{channels} -> {outputs}, window {window}, {what}: {found:.0}, measured {measured}"));
            }
        }
        let wins = |float: f64, codes: f64| codes < 0.97 * float;
        let expected = conv.in_float(&times, results) / conv.on_codes(&times, results);
        if wins(float, codes) != (expected > 1.0 / 0.97) {
            off.push(format!("{channels} -> {outputs}, window {window}: {expected:.2}, measured {:.2}", float / codes));
        }
    }
    assert_eq!(off, Vec::<String>::new());
}

#[test]
fn channels_are_added_where_windows_are_small() {
    let table = [
        ("a picture", Convolution::of_sizes(32, 3, 9), true),
        ("one channel, small window", Convolution::of_sizes(32, 1, 9), true),
        ("one channel, long window", Convolution::of_sizes(36, 1, 256), false),
        ("aligned already", Convolution::of_sizes(32, 4, 9), false),
        ("one position", Convolution::of_sizes(32, 3, 1), false),
        ("few outputs", Convolution::of_sizes(8, 3, 9), false),
    ];
    for (what, conv, pays) in table {
        assert_eq!(conv.aligning_pays(), pays, "{what}");
    }
}
