/* One connection that publishes: a POST, its answer, the next POST. It blocks; the load generator gives it a thread. */
#ifndef PUBLISHER_H
#define PUBLISHER_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

struct publisher {
    struct sockaddr_in address;
    const char *path;
    size_t payload; /* bytes */
    int fd;         /* -1: not connected */
    int status;     /* of the last answer; 0: there was none */
    long connected; /* how often: a server may close the connection after an answer */
    char *request;
    size_t begin; /* where the payload begins in the request */
};

void publisher_open(struct publisher *publisher);

/* Publish one event; returns whether the server took it (2xx). What was not answered is not sent again. */
int publish(struct publisher *publisher, char mark, uint32_t number, uint64_t sent_ns);

#endif
