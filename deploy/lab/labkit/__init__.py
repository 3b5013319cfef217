"""The parts of the lab: a fleet of libvirt hosts, etcd, Prometheus and Evenkeel on one machine.

`model` says what a lab consists of; `cgroups`, `network` and `nodes` make its machines; `hypervisor`,
`services` and `daemons` run things on them; `guests` and `beats` are about guests; `faults` break it all;
`lifecycle` brings a lab up and takes it down; `command` is the command line.
"""
