/* The account of deliveries: which event has come to which stream, how often, in which order, how late. */
#ifndef TALLY_H
#define TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"
#include "reader.h"

/* Of one stream. */
struct had {
    bool probed; /* a probe has come: it is subscribed */
    bool any;    /* an event has come; the highest number of those is: */
    uint32_t highest;
    uint8_t *bits; /* one for each event */
};

/* Of all streams. */
struct tally {
    uint32_t events;  /* that are published */
    size_t payload;   /* bytes */
    int probed;       /* streams */
    long deliveries;  /* no event is counted twice for a stream */
    long expected;    /* those of streams that had a probe */
    long doubled, out_of_order;
    long damaged;     /* shorter than what was published */
    long strange;     /* with a number that nobody published */
    uint64_t last_ns; /* when the last came */
    struct histogram latency;
};

void tally_count(struct tally *tally, struct had *had, const struct event *event, uint64_t now_ns);

/* How many of the first so many events have not come to a stream; 0 for one that was never subscribed. */
long tally_missing(const struct had *had, uint32_t published);

#endif
