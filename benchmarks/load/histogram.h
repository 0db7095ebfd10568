/* Counts of times by size, in buckets that are at most 1/64 wider than what they hold: percentiles of millions in little memory. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

#define FINE 64 /* buckets to each power of two */

struct histogram {
    uint64_t counts[64 * FINE];
    uint64_t total, most;
};

static inline void histogram_add(struct histogram *histogram, uint64_t value) {
    unsigned power = value < FINE ? 0 : 57u - (unsigned)__builtin_clzll(value); /* value >> power is below 2 * FINE */
    histogram->counts[power * FINE + (value >> power)]++;
    histogram->total++;
    if (value > histogram->most) histogram->most = value;
}

/* What so many parts of one do not exceed, give or take a bucket. */
static inline uint64_t histogram_at(const struct histogram *histogram, double part) {
    uint64_t wanted = (uint64_t)(part * (double)histogram->total), sum = 0;
    for (unsigned at = 0; at < 64 * FINE; at++) {
        sum += histogram->counts[at];
        if (sum <= wanted && sum < histogram->total) continue;
        unsigned power = at < 2 * FINE ? 0 : at / FINE - 1;
        uint64_t value = (uint64_t)(at - power * FINE) << power;
        return value < histogram->most ? value : histogram->most;
    }
    return histogram->most;
}

#endif
