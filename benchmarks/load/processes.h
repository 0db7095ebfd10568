/* What processes take of the machine, read from /proc: CPU time and memory of groups of them, children included. */
#ifndef PROCESSES_H
#define PROCESSES_H

#define GROUPS 4
#define GROUP_PIDS 16

struct group {
    char name[32];
    int pids[GROUP_PIDS]; /* as given; their children are found anew with each look */
    int count;
};

struct usage {
    double cpu_s;  /* user and system */
    long pss_kb;   /* shared pages are divided among those who share them */
    int processes; /* 0: all have died */
};

/* Of the whole machine, since it was started. */
struct machine {
    double busy_s;   /* all but idle, waiting for a disk, and stolen */
    double stolen_s; /* by other guests of the same hardware */
};

struct usage group_usage(const struct group *group);
struct machine machine_usage(void);
struct machine machine_since(struct machine then);

#endif
