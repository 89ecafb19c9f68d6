//! A figure of the user's own for how good a model is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;

/// Says how good the model in a file is, the larger the better; else why it cannot.
pub type Measuring = dyn Fn(&Path) -> Result<f64, String> + Send + Sync;

/// A figure of the user's own, such as accuracy on labelled data, that decisions hold to in place of an SQNR.
#[derive(Clone)]
pub struct Metric {
    /// Measures a model.
    pub measure: Arc<Measuring>,
    /// The written model must have as much.
    pub min: Option<f64>,
    /// It may have so much less than the float model.
    pub max_loss: Option<f64>,
}

impl Metric {
    /// What is wanted where the float model has `of_float`; nothing where the figure is only to be told.
    pub(crate) fn wanted(&self, of_float: f64) -> Option<f64> {
        let by_loss = self.max_loss.map(|loss| of_float - loss);
        self.min.into_iter().chain(by_loss).reduce(f64::max)
    }

    /// Whether something is asked for.
    pub fn is_goal(&self) -> bool {
        self.min.is_some() || self.max_loss.is_some()
    }

    /// Refuses goals that are no numbers.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.min.is_some_and(f64::is_nan) {
            return Err(Error::Usage("the least metric is a number".to_owned()));
        }
        match self.max_loss {
            Some(most) if most.is_nan() || most < 0.0 => {
                Err(Error::Usage("the loss of a metric is a number of at least 0".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metric").field("min", &self.min).field("max_loss", &self.max_loss).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_of_two_goals_counts() {
        let metric = |min, max_loss| Metric { measure: Arc::new(|_: &Path| Ok(0.0)), min, max_loss };
        assert_eq!(metric(None, None).wanted(0.9), None);
        assert_eq!(metric(Some(0.8), None).wanted(0.9), Some(0.8));
        assert_eq!(metric(None, Some(0.25)).wanted(0.75), Some(0.5));
        assert_eq!(metric(Some(0.625), Some(0.25)).wanted(0.75), Some(0.625));
        assert!(metric(Some(f64::NAN), None).check().is_err());
        assert!(metric(None, Some(-0.1)).check().is_err());
        assert!(metric(Some(-3.0), Some(0.0)).check().is_ok());
    }
}
