//! Pictures as tensors.

use std::fs;
use std::path::PathBuf;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageEncoder, ImageFormat, Rgb, RgbImage};

use super::*;

fn spec(dims: &[usize], element: ElementType) -> InputSpec {
    let dims = dims.iter().map(|&n| if n == 0 { Dim::Unknown } else { Dim::Fixed(n) }).collect();
    InputSpec { name: "image".into(), element, dims: Some(dims), optional: false }
}

/// Red on the left, black on the right; 8 columns, 4 rows.
fn half_red() -> RgbImage {
    RgbImage::from_fn(8, 4, |x, _| if x < 4 { Rgb([255, 0, 51]) } else { Rgb([0, 0, 0]) })
}

fn saved(dir: &Path, name: &str) -> Part {
    let path = dir.join(name);
    half_red().save(&path).unwrap();
    Part::whole(path)
}

fn prepared(spec: &InputSpec, image: ImageOptions) -> Result<Preparation, CalibError> {
    let options = DataOptions { image: Some(image), ..DataOptions::default() };
    Preparation::new(spec, Path::new("nowhere"), &options)
}

fn preset(name: &str) -> ImageOptions {
    ImageOptions { base: ImageBase::Preset(ImagePreset::named(name).unwrap()), ..ImageOptions::default() }
}

#[test]
fn pixels_are_scaled_and_put_in_the_models_layout() {
    let dir = tempfile::tempdir().unwrap();
    let part = saved(dir.path(), "a.png");
    let chw = prepared(&spec(&[1, 3, 4, 8], ElementType::F32), ImageOptions::default()).unwrap();
    let a = chw.load(&part).unwrap().to_f32().unwrap();
    assert_eq!((a.shape(), a[[0, 0, 1, 1]]), (&[1, 3, 4, 8][..], 1.0));
    assert!((a[[0, 2, 1, 1]] - 0.2).abs() < 1e-6);
    let bgr = ImageOptions {
        channel_order: Some(ChannelOrder::Bgr),
        mean: Some([0.2, 0.5, 0.5]),
        std: Some([0.5; 3]),
        ..ImageOptions::default()
    };
    let hwc = prepared(&spec(&[4, 8, 3], ElementType::F32), bgr).unwrap();
    let a = hwc.load(&part).unwrap().to_f32().unwrap();
    assert_eq!((a.shape(), a[[1, 1, 2]]), (&[4, 8, 3][..], 1.0));
    assert!(a[[1, 1, 0]].abs() < 1e-6);
}

#[test]
fn a_center_crop_keeps_proportions() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = prepared(&spec(&[0, 3, 4, 4], ElementType::U8), preset("clip")).unwrap();
    let Tensor::U8(a) = bytes.load(&saved(dir.path(), "a.png")).unwrap() else { panic!("uint8 expected") };
    assert_eq!((a[[0, 0, 0, 1]], a[[0, 0, 0, 2]]), (255, 0), "the edge stays in the middle");
}

#[test]
fn a_letterbox_is_filled_with_grey() {
    let dir = tempfile::tempdir().unwrap();
    let boxed = prepared(&spec(&[1, 3, 8, 8], ElementType::F32), preset("yolo")).unwrap();
    let a = boxed.load(&saved(dir.path(), "a.png")).unwrap().to_f32().unwrap();
    let column: Vec<f32> = (0..8).map(|row| a[[0, 0, row, 0]]).collect();
    let grey = 114.0 / 255.0;
    let expected = [grey, grey, 1.0, 1.0, 1.0, 1.0, grey, grey];
    assert!(column.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{column:?}");
    let filled = boxed.filled(&saved(dir.path(), "a.png")).unwrap();
    assert_eq!(filled, Filled { lengths: vec![8, 8], given: vec![2..6, 0..8] });
}

#[test]
fn a_detector_gets_the_mask_of_its_picture() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), "a.png");
    let mask = InputSpec { name: "pixel_mask".into(), ..spec(&[1, 0, 0], ElementType::I64) };
    let inputs = [mask, spec(&[1, 3, 8, 8], ElementType::F32)];
    let options = DataOptions { image: Some(preset("yolo")), ..DataOptions::default() };
    let set = crate::data::CalibSet::open(dir.path(), &inputs, &options).unwrap();
    assert_eq!(set.shapes(0), [vec![1, 8, 8], vec![1, 3, 8, 8]]);
    let sample = set.load(0).unwrap();
    let (name, Tensor::I64(mask)) = &sample[0] else { panic!("int64 expected") };
    assert_eq!((name.as_str(), mask.sum(), mask[[0, 1, 0]], mask[[0, 2, 0]]), ("pixel_mask", 32, 0, 1));
}

#[test]
fn a_processor_is_found_beside_pictures_and_other_options_go_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"{"size": {"height": 4, "width": 4}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    fs::write(dir.path().join("preprocessor_config.json"), text).unwrap();
    let part = saved(dir.path(), "a.png");
    let open = |dims: &[usize], image: Option<ImageOptions>| {
        let options = DataOptions { image, ..DataOptions::default() };
        Preparation::new(&spec(dims, ElementType::F32), dir.path(), &options)
    };
    let found = open(&[1, 3, 0, 0], None).unwrap();
    assert_eq!(found.scan(&part).unwrap(), [1, 3, 4, 4]);
    let a = found.load(&part).unwrap().to_f32().unwrap();
    assert_eq!((a[[0, 0, 0, 0]], a[[0, 0, 0, 3]]), (1.0, -1.0));
    let plain = open(&[1, 3, 4, 4], Some(preset("unit"))).unwrap().load(&part).unwrap().to_f32().unwrap();
    assert_eq!(plain[[0, 0, 0, 3]], 0.0);
    let error = open(&[1, 3, 6, 6], None).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json") && error.contains("--image-size 6x6"), "{error}");
    let sized = ImageOptions { size: Some((6, 6)), ..ImageOptions::default() };
    assert_eq!(open(&[1, 3, 6, 6], Some(sized)).unwrap().scan(&part).unwrap(), [1, 3, 6, 6]);
}

#[test]
fn sizes_that_follow_from_pictures_are_checked_picture_by_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.json");
    fs::write(&path, r#"{"size": {"shortest_edge": 6}, "do_normalize": false}"#).unwrap();
    let image = || ImageOptions { base: ImageBase::Processor(path.clone()), ..ImageOptions::default() };
    let part = saved(dir.path(), "a.png");
    let free = prepared(&spec(&[1, 3, 0, 0], ElementType::F32), image()).unwrap();
    assert_eq!(free.scan(&part).unwrap(), [1, 3, 6, 12]);
    assert_eq!(free.load(&part).unwrap().shape(), [1, 3, 6, 12]);
    let fixed = prepared(&spec(&[1, 3, 6, 6], ElementType::F32), image()).unwrap();
    let error = fixed.scan(&part).unwrap_err().to_string();
    assert!(error.contains("a.png") && error.contains("--image-size 6x6"), "{error}");
}

#[test]
fn pictures_of_all_formats_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let input = prepared(&spec(&[1, 3, 4, 8], ElementType::U8), ImageOptions::default()).unwrap();
    let expected = input.load(&saved(dir.path(), "a.png")).unwrap();
    for name in ["a.bmp", "a.tiff", "a.webp", "a.gif"] {
        let part = saved(dir.path(), name);
        assert_eq!(input.scan(&part).unwrap(), [1, 3, 4, 8], "{name}");
        assert_eq!(input.load(&part).unwrap(), expected, "{name}");
    }
}

/// EXIF data with nothing but an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    bytes.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn pictures_are_turned_upright() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jpg");
    let mut encoder = JpegEncoder::new_with_quality(fs::File::create(&path).unwrap(), 100);
    encoder.set_exif_metadata(exif(6)).unwrap();
    let wide = RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([255; 3]) } else { Rgb([0; 3]) });
    encoder.write_image(wide.as_raw(), 32, 16, image::ExtendedColorType::Rgb8).unwrap();
    let upright = prepared(&spec(&[1, 3, 32, 16], ElementType::U8), ImageOptions::default()).unwrap();
    let part = Part::whole(path);
    assert_eq!(dimensions(&part).unwrap(), (32, 16));
    let Tensor::U8(a) = upright.load(&part).unwrap() else { panic!("uint8 expected") };
    assert_eq!((a[[0, 0, 2, 8]], a[[0, 0, 30, 8]]), (255, 0), "what was on the left is above");
}

/// The bytes of a picture.
fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(64, 48, |x, y| Rgb([(x * y % 251) as u8, (x * 3) as u8, (y * 5) as u8]));
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn damaged_pictures_are_errors_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let input = prepared(&spec(&[1, 3, 4, 8], ElementType::U8), ImageOptions::default()).unwrap();
    let load = |bytes: &[u8]| {
        let path: PathBuf = dir.path().join("a");
        fs::write(&path, bytes).unwrap();
        input.load(&Part::whole(path))
    };
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    for format in [Png, Jpeg, WebP, Bmp, Tiff, Gif] {
        let whole = encoded(format);
        assert!(load(&whole).is_ok(), "{format:?}");
        for cut in [0, 3, 20, whole.len() / 4, whole.len() / 2] {
            assert!(load(&whole[..cut]).is_err(), "{format:?} cut at {cut} of {}", whole.len());
        }
        for at in (0..whole.len().min(200)).chain((200..whole.len()).step_by(97)) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x55;
            let _ = load(&flipped).map(|tensor| tensor.len());
        }
    }
}

#[test]
fn claims_of_many_pixels_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut bmp = encoded(ImageFormat::Bmp);
    for (width, height) in [(100_000_i32, 100_000_i32), (60_000, 60_000), (30_000, 30_000)] {
        bmp[18..22].copy_from_slice(&width.to_le_bytes());
        bmp[22..26].copy_from_slice(&height.to_le_bytes());
        let path = dir.path().join("a.bmp");
        fs::write(&path, &bmp).unwrap();
        let error = dimensions(&Part::whole(path)).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = text + ": " + &inner.to_string();
            source = inner.source();
        }
        assert!(text.contains("a.bmp") && (text.contains("the limit is") || text.contains("limit")), "{text}");
    }
}

#[test]
fn what_is_done_is_told() {
    let told = |dims: &[usize], element, image| prepared(&spec(dims, element), image).unwrap().describe();
    let rows = [
        (
            told(&[1, 3, 224, 224], ElementType::F32, preset("imagenet")),
            "224x224 (bilinear, center crop), RGB, scaled 1/255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, after preset imagenet",
        ),
        (
            told(&[1, 3, 64, 64], ElementType::F32, preset("yolox")),
            "64x64 (bilinear, letterbox of 114), BGR, after preset yolox",
        ),
        (told(&[1, 1, 28, 28], ElementType::F32, ImageOptions::default()), "28x28 (bilinear), grey, scaled 1/255"),
        (
            told(&[8, 9, 3], ElementType::U8, ImageOptions::default()),
            "8x9 (bilinear), RGB, pixels of 0 to 255 as they are",
        ),
    ];
    for (found, expected) in rows {
        assert_eq!(found, expected);
    }
}

#[test]
fn numbers_that_do_not_go_with_the_scale_are_named() {
    let unlikely = |image| prepared(&spec(&[1, 3, 8, 8], ElementType::F32), image).unwrap().unlikely();
    let mean = |mean| ImageOptions { mean: Some(mean), ..ImageOptions::default() };
    let found = unlikely(mean([127.0; 3])).unwrap();
    assert!(
        found.contains("mean 127 goes with pixels of another range than 0 to 1") && found.contains("0.498"),
        "{found}"
    );
    let found = unlikely(ImageOptions { std: Some([58.0; 3]), ..ImageOptions::default() }).unwrap();
    assert!(found.contains("std 58") && found.contains("0.2275"), "{found}");
    let found = unlikely(ImageOptions { mean: Some([0.485; 3]), ..preset("caffe") }).unwrap();
    assert!(found.contains("mean 0.485 goes with pixels of another range than 0 to 255"), "{found}");
    for likely in IMAGE_PRESETS.iter().map(|found| preset(found.name)).chain([mean([0.5; 3])]) {
        assert_eq!(unlikely(likely), None);
    }
}

#[test]
fn unsuited_inputs_are_refused() {
    let rows = [(vec![1, 5, 4, 4], "no axis has"), (vec![1, 3, 0, 0], "give height"), (vec![7, 7], "expected 3 axes")];
    for (dims, expected) in rows {
        let error = prepared(&spec(&dims, ElementType::F32), ImageOptions::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
