//! Options that would have no effect beside the others: one table, and an error that says beside what they have one.

use onnxquant::{Activations, Error};

use super::words::{ActivationType, FormatName, MethodName, TargetName};
use super::{QuantizeArgs, command};

/// Why an option changes nothing beside the others, if so.
type Idle = fn(&QuantizeArgs) -> Option<&'static str>;

/// Options, by their name in [`QuantizeArgs`], that do not always have an effect.
const EFFECTS: &[(&str, Idle)] = &[
    ("activation_bits", without_fixed_scales),
    ("activation_type", |args| {
        let settings = &args.settings;
        let is_signed_alone = settings.target == TargetName::Tensorrt && settings.activation_type == ActivationType::U8;
        without_fixed_scales(args).or(is_signed_alone.then_some("`--target tensorrt` takes activations of s8 alone"))
    }),
    ("beam", |args| without_data(args).or_else(|| without(args, &[MethodName::Feedback], "`--method feedback`"))),
    ("calibration_cache", without_fixed_scales),
    ("channel_order", without_data),
    ("cpu", |args| {
        let is_elsewhere = matches!(args.settings.target, TargetName::Tensorrt | TargetName::Qnn);
        let elsewhere = is_elsewhere.then_some("this target runs on no such processor");
        elsewhere.or_else(|| without_codes(args).filter(|_| !weighs_bytes(args)))
    }),
    ("damping", |args| without_data(args).or_else(|| without(args, &QUADRATIC, "a method that knows the data"))),
    ("engine", without_data),
    ("format", |args| {
        let settings = &args.settings;
        let is_foreign = matches!(settings.format, FormatName::Matmulnbits) && settings.target != TargetName::OrtCpu;
        is_foreign.then_some("this target takes standard operators alone")
    }),
    ("image_preset", without_data),
    ("image_size", without_data),
    ("layout", without_data),
    ("log", |args| args.telling.quiet.then_some("nothing is printed with --quiet")),
    ("mean", without_data),
    ("memory_limit", without_data),
    ("no_fallback", |args| {
        let walks = matches!(args.settings.method, MethodName::MalySaab | MethodName::CellWalk);
        (!walks).then_some("it has one with `--method maly-saab` and `cell-walk`, which may give way to rounding")
    }),
    ("one_pass", without_data),
    ("ort_lib", without_runtime),
    ("power_of_two_scales", without_fixed_scales),
    ("python", without_runtime),
    ("range", without_fixed_scales),
    ("reduce_range", |args| {
        let settings = &args.settings;
        let is_of_eight = settings.bits.is_none() && settings.plan.is_none() && settings.scheme().bits() == 8;
        let other = (!is_of_eight).then_some("it makes 7 bits of 8: leave out the bits, and use a scheme of 8 bits");
        without_codes(args).or(other)
    }),
    ("samples", without_data),
    ("saturation", |args| {
        let saturates = matches!(args.settings.method, MethodName::MalySaab);
        (!saturates).then_some("it is about `--method maly-saab`")
    }),
    ("scale", |args| {
        let finds = matches!(args.settings.method, MethodName::Feedback | MethodName::Saturate);
        finds.then_some("this method finds scales itself")
    }),
    ("sequence_length", without_data),
    ("shrink", |args| without_data(args).or_else(|| without(args, &[MethodName::Feedback], "`--method feedback`"))),
    ("std", without_data),
    ("text_key", without_data),
    ("tokenizer", without_data),
];

/// Methods that measure errors by the Gram matrix of a layer's inputs.
const QUADRATIC: [MethodName; 4] = [MethodName::Feedback, MethodName::Gpfq, MethodName::Optq, MethodName::Saturate];

fn without_fixed_scales(args: &QuantizeArgs) -> Option<&'static str> {
    let has_scales = matches!(args.settings.activations(), Activations::Static | Activations::Auto);
    let text = "it is about activations on fixed scales: use `--scheme auto`, `w8a8` or `w4a8`";
    (!has_scales).then_some(text)
}

fn without_codes(args: &QuantizeArgs) -> Option<&'static str> {
    let is_float = args.settings.activations() == Activations::Float;
    let text = "it is about integer activations, and this scheme has none: use `--scheme auto`, `w8a8`, `w4a8` or \
                `w8a8-dynamic`";
    is_float.then_some(text)
}

/// Whether weights of 8 bits become what is fastest for as many rows as samples have.
fn weighs_bytes(args: &QuantizeArgs) -> bool {
    let settings = &args.settings;
    let may_have_bytes = settings.bits() > 4 || settings.plan.is_some() || settings.budget().is_some();
    let is_free = matches!(settings.format, FormatName::Auto) && !settings.is_fp8();
    !args.weights_only && may_have_bytes && is_free
}

fn without_data(args: &QuantizeArgs) -> Option<&'static str> {
    args.weights_only.then_some("no samples are read with --weights-only")
}

fn without_runtime(args: &QuantizeArgs) -> Option<&'static str> {
    let is_idle = args.weights_only && args.verify.is_none();
    is_idle.then_some("nothing is measured without samples: use it with --calib or `--verify ort`")
}

/// That the method is neither `auto` nor one of these.
fn without(args: &QuantizeArgs, methods: &[MethodName], names: &'static str) -> Option<&'static str> {
    let method = args.settings.method;
    let is_used = matches!(method, MethodName::Auto) || methods.contains(&method);
    (!is_used).then_some(names)
}

/// Refuses the first option that was given and changes nothing.
///
/// # Errors
/// [`Error::Usage`], with the option and beside what it has an effect.
pub(crate) fn check(is_given: impl Fn(&str) -> bool, args: &QuantizeArgs) -> Result<(), Error> {
    for (id, idle) in EFFECTS.iter().filter(|(id, _)| is_given(id)) {
        if let Some(why) = idle(args) {
            return Err(Error::Usage(format!("{} has no effect here: {why}", flag(id))));
        }
    }
    Ok(())
}

/// Whether an option, by its name in [`QuantizeArgs`], changes nothing beside the others.
pub(crate) fn has_no_effect(id: &str, args: &QuantizeArgs) -> bool {
    EFFECTS.iter().any(|(known, idle)| *known == id && idle(args).is_some())
}

/// The option as it is typed.
fn flag(id: &str) -> String {
    let command = command();
    let long = command.get_arguments().find(|arg| arg.get_id() == id).and_then(|arg| arg.get_long());
    format!("--{}", long.unwrap_or(id))
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
