"""All targets by name.  Each takes a stream of bytes, and raises if the result is wrong."""

import target_codec
import target_conversation
import target_framing
import target_whole

TARGETS = {
    "framing": target_framing.check,
    "codec": target_codec.check,
    "conversation": target_conversation.check,
    "whole": target_whole.check,
}
