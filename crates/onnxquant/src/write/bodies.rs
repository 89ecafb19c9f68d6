//! Puts codes into the bodies of a model.

use onnxquant_ir::Model;
use onnxquant_passes::outer_constants::stays_in_body;

use crate::error::Error;
use crate::load::check;
use crate::plan::layers::PlannedBody;
use crate::write::codes::Codes;

/// What becomes of the float model of a body with these codes.
pub(crate) type MakeBody<'a> = &'a dyn Fn(&Model, &PlannedBody, Codes<'_>) -> Result<Model, Error>;

/// Lets `make` write the codes of every body, and puts these into `model`, the rest of which is in float still.
pub(crate) fn put_bodies(model: &mut Model, codes: Codes<'_>, make: MakeBody<'_>) -> Result<(), Error> {
    for (planned, body) in codes.planned_bodies.iter().zip(codes.bodies) {
        let codes = body.codes(planned);
        if codes.is_empty() {
            continue;
        }
        let mut float = (*planned.model).clone();
        float.graph_mut().avoid_names_of(model.graph());
        let made = make(&float, planned, codes)?;
        model.close_body(&planned.place, made, &stays_in_body);
    }
    check(model, "writing bodies")
}
