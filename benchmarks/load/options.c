#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "reader.h"

static const struct option names[] = {
    {"port", 1, 0, 'p'},      {"stream", 1, 0, 's'},    {"publish", 1, 0, 'P'}, {"streams", 1, 0, 'n'},
    {"events", 1, 0, 'm'},    {"payload", 1, 0, 'b'},   {"rate", 1, 0, 'r'},    {"window", 1, 0, 'w'},
    {"handshake", 1, 0, 'h'}, {"quiet", 1, 0, 'q'},     {"late", 0, 0, 'l'},    {"deadline", 1, 0, 'd'},
    {"group", 1, 0, 'g'},     {0, 0, 0, 0},
};

/* NAME:PID[,PID...] */
static void parse_group(struct group *group, char *text) {
    const char *name = strtok(text, ":");
    snprintf(group->name, sizeof group->name, "%s", name ? name : "");
    for (char *pid; (pid = strtok(NULL, ",")) && group->count < GROUP_PIDS;) group->pids[group->count++] = atoi(pid);
}

static void refuse(const char *why) {
    fprintf(stderr, "load: %s\n", why);
    exit(2);
}

struct options parse_options(int count, char **words) {
    struct options options = {
        .server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
        .path = "/stream",
        .publish = "/pub",
        .streams = 10,
        .events = 10,
        .payload = 64,
        .window = 128,
        .handshake_s = 30,
        .quiet_s = 3,
        .deadline_s = 60,
    };
    for (int name; (name = getopt_long(count, words, "", names, NULL)) != -1;) {
        switch (name) {
        case 'p': options.server.sin_port = htons((uint16_t)atoi(optarg)); break;
        case 's': options.path = optarg; break;
        case 'P': options.publish = optarg; break;
        case 'n': options.streams = atoi(optarg); break;
        case 'm': options.events = atoi(optarg); break;
        case 'b': options.payload = strtoul(optarg, NULL, 10); break;
        case 'r': options.rate = atof(optarg); break;
        case 'w': options.window = atoi(optarg); break;
        case 'h': options.handshake_s = atof(optarg); break;
        case 'q': options.quiet_s = atof(optarg); break;
        case 'd': options.deadline_s = atof(optarg); break;
        case 'l': options.late = true; break;
        case 'g':
            if (options.group_count == GROUPS) refuse("too many groups");
            parse_group(&options.groups[options.group_count++], optarg);
            break;
        default: exit(2);
        }
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    if (!options.server.sin_port) refuse("needs --port");
    if (options.payload < PAYLOAD_START_LENGTH) refuse("a --payload has a number and a time in it: 33 bytes at least");
    if (options.streams < 1 || options.events < 1) refuse("nothing to do");
    if ((rlim_t)options.streams + 64 > files.rlim_max) refuse("more --streams than the files that a process may open");
    return options;
}
