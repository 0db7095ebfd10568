#include "processes.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES 65536

struct process {
    int pid, parent;
    double cpu_s;
    bool ours;
};

static struct process all[PROCESSES];

static bool read_process(int pid, struct process *process) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return false;
    size_t count = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[count] = 0;
    const char *after = strrchr(text, ')'); /* the name before it may hold anything */
    unsigned long user, system;
    char state;
    int parent;
    if (!after || sscanf(after + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state, &parent, &user, &system) != 4)
        return false;
    *process = (struct process){pid, parent, (double)(user + system) / (double)sysconf(_SC_CLK_TCK), false};
    return state != 'Z';
}

static long pss_kb(int pid) {
    char path[64], line[256];
    long kb = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Pss: %ld kB", &kb) == 1) break;
    if (file) fclose(file);
    return kb;
}

struct usage group_usage(const struct group *group) {
    int count = 0;
    struct usage usage = {0, 0, 0};
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; folder && (entry = readdir(folder)) && count < PROCESSES;) {
        int pid = atoi(entry->d_name);
        if (pid > 0 && read_process(pid, &all[count])) count++;
    }
    if (folder) closedir(folder);
    for (int at = 0; at < count; at++)
        for (int own = 0; own < group->count; own++) all[at].ours |= all[at].pid == group->pids[own];
    for (bool found = true; found;) { /* children of ours are ours, until there are no more */
        found = false;
        for (int child = 0; child < count; child++)
            for (int at = 0; at < count && !all[child].ours; at++)
                if (all[at].ours && all[at].pid == all[child].parent) all[child].ours = found = true;
    }
    for (int at = 0; at < count; at++) {
        if (!all[at].ours) continue;
        usage.cpu_s += all[at].cpu_s;
        usage.processes++;
        usage.pss_kb += pss_kb(all[at].pid);
    }
    return usage;
}

struct machine machine_usage(void) {
    unsigned long long user, nice, system, idle, wait, irq, softirq, stolen;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    struct machine machine = {0, 0};
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return machine;
    if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq, &softirq, &stolen) == 8)
        machine = (struct machine){(double)(user + nice + system + irq + softirq) / ticks, (double)stolen / ticks};
    fclose(file);
    return machine;
}

struct machine machine_since(struct machine then) {
    struct machine now = machine_usage();
    return (struct machine){now.busy_s - then.busy_s, now.stolen_s - then.stolen_s};
}
