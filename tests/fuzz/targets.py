"""All targets by name: each takes a stream of bytes, and raises if something is wrong with what came of it."""

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
