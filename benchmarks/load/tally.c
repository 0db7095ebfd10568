#include "tally.h"

void tally_count(struct tally *tally, struct had *had, const struct event *event, uint64_t now_ns) {
    tally->last_ns = now_ns;
    if (event->mark == MARK_PROBE) {
        tally->probed += !had->probed;
        had->probed = true;
        return;
    }
    if (event->number >= tally->events) {
        tally->strange++;
        return;
    }
    uint8_t bit = (uint8_t)(1u << event->number % 8), *byte = &had->bits[event->number / 8];
    if (*byte & bit) {
        tally->doubled++;
        return;
    }
    *byte |= bit;
    tally->deliveries++;
    tally->expected += had->probed;
    tally->damaged += event->length < tally->payload;
    tally->out_of_order += had->any && event->number < had->highest;
    if (!had->any || event->number > had->highest) had->highest = event->number;
    had->any = true;
    histogram_add(&tally->latency, now_ns > event->sent_ns ? now_ns - event->sent_ns : 0);
}

long tally_missing(const struct had *had, uint32_t published) {
    long missing = 0;
    for (uint32_t number = 0; number < published && had->probed; number++)
        missing += !(had->bits[number / 8] >> number % 8 & 1);
    return missing;
}
