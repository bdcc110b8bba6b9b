//! Why a function could not make sense of a request.

use std::any::Any;
use std::fmt;

use crate::response::answer::Answer;

/// What a function of a throttle failed with.
#[derive(Debug)]
pub(crate) struct Cause {
    text: String,
    answer: Option<Answer>,
}

impl Cause {
    pub(crate) fn new<E: fmt::Display + 'static>(error: &E) -> Cause {
        let error_of_actix = (error as &dyn Any).downcast_ref::<actix_web::Error>();
        Cause {
            text: error.to_string(),
            answer: error_of_actix.map(Answer::of_error),
        }
    }

    /// What it is answered, if it was an error of actix-web.
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
