/* What the load generator is asked to do: its command line. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "processes.h"

struct options {
    struct sockaddr_in server;
    const char *path, *publish; /* of GET and of POST */
    int streams, events;
    size_t payload;
    double rate;        /* events a second; 0: each as soon as the one before is answered */
    bool late;          /* the server answers a GET only with the stream's first event */
    int window;         /* streams that are being opened at once */
    double handshake_s; /* for a stream to be answered, and for all to be subscribed */
    double quiet_s;     /* what has not come for so long is lost */
    double deadline_s;  /* for publishing and delivering */
    struct group groups[GROUPS];
    int group_count;
};

/* Exits with a message if they cannot work. */
struct options parse_options(int count, char **words);

#endif
