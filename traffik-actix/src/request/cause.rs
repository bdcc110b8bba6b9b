//! Why a function could not make sense of a request.

use std::any::Any;
use std::fmt;

use actix_web::ResponseError;

use crate::response::answer::Answer;
use crate::response::hit_error::HitError;

/// What a function of a throttle failed with.
#[derive(Debug)]
pub(crate) struct Cause {
    text: String,
    answer: Option<Answer>,
}

impl Cause {
    pub(crate) fn new<E: fmt::Display + 'static>(error: &E) -> Cause {
        let error_of_actix = (error as &dyn Any).downcast_ref::<actix_web::Error>();
        let error_of_hit = (error as &dyn Any).downcast_ref::<HitError>();
        let answer = error_of_actix.map(actix_web::Error::error_response);
        let answer = answer.or_else(|| error_of_hit.map(ResponseError::error_response));
        Cause {
            text: error.to_string(),
            answer: answer.map(Answer::of_error),
        }
    }

    /// What it is answered, if it was an error of actix-web, or of a hit by hand.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {}
