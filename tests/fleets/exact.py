#!/usr/bin/env python3
"""The optimum of a fleet under the frozen-variance surrogate, or a bound of it, by HiGHS.

Reads the cases that `fleets cases` writes and writes NAME.exact.json beside each. The problem is a MILP: one binary per
guest and host, the demand of every host, and its convex value bounded from below by tangents. Tangents lie below the
function, so whatever HiGHS proves to be a bound of the MILP is a bound of the problem. The order in which guests
could move is left out: that, too, can only lower it.

Bounds are kept by the content of the problem: a case that is known and proven is not solved again.
"""

import argparse
import itertools
import json
import math
import os
import sys
import time

import highspy
import numpy as np

# The value of a placement is scored to this of the other program's figure, or the two do not mean the same.
SAME = 1e-6
# Proven: no placement can be better than the best known by more than this share of it.
PROVEN = 1e-3


def normal(z):
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return density, 0.5 * math.erfc(-z / math.sqrt(2))


class Problem:
    """An instance as arrays, with the value of a host and its slope."""

    def __init__(self, instance):
        self.horizon, self.factor = instance["horizon"], instance["factor"]
        self.balance, self.mean = instance["balance"], instance["mean"]
        self.hosts, self.guests, self.apart = instance["hosts"], instance["guests"], instance["apart"]
        self.demand = np.array([g["demand"] for g in self.guests])
        self.memory = np.array([g["memory_mib"] for g in self.guests], dtype=float)

    def by_demand(self, h, demand):
        """Value of a host as far as it depends on demand, and its slope."""
        host = self.hosts[h]
        deviation = math.sqrt(host["variance"])
        z = (demand + host["own"] - host["cores"]) / deviation
        density, below = normal(z)
        value = deviation * (density + z * below) * host["calibration"]
        slope = below * host["calibration"]
        if self.balance and host["counted"]:
            off = demand / host["cores"] - self.mean[0]
            value += self.balance * host["cores"] * off * off
            slope += 2 * self.balance * off
        return value, slope

    def by_memory(self, h, memory):
        """The same for memory."""
        host = self.hosts[h]
        if not self.balance or not host["counted"]:
            return 0.0, 0.0
        off = memory / host["capacity_mib"] - self.mean[1]
        scale = self.balance * host["cores"]
        return scale * off * off, 2 * scale * off / host["capacity_mib"]

    def sums(self, placement):
        demand, memory = np.zeros(len(self.hosts)), np.zeros(len(self.hosts))
        placement = list(placement)
        np.add.at(demand, placement, self.demand)
        np.add.at(memory, placement, self.memory)
        return demand, memory

    def objective(self, placement):
        """J, guest-seconds; None if the placement is not allowed."""
        demand, memory = self.sums(placement)
        total = 0.0
        for g, h in zip(self.guests, placement):
            if g["cost"][h] is None:
                return None
            total += self.factor * g["cost"][h]
        for h, host in enumerate(self.hosts):
            if memory[h] > host["capacity_mib"]:
                return None
            total += self.horizon * (self.by_demand(h, demand[h])[0] + self.by_memory(h, memory[h])[0])
        for rule in self.apart:
            places = [rule["place"][placement[g]] for g in rule["members"]]
            if len(set(places)) < len(places):
                return None
        return total


class Milp:
    """The MILP in HiGHS."""

    def __init__(self, problem, threads):
        self.p = problem
        self.highs = highspy.Highs()
        for option, value in (("output_flag", False), ("threads", threads), ("random_seed", 1)):
            self.highs.setOptionValue(option, value)
        self.terms = [problem.by_demand] + ([problem.by_memory] if problem.balance else [])
        self.lowest = [[0.0] * len(problem.hosts) for _ in self.terms]
        self._variables()
        self._rows()
        self.points = [[[] for _ in problem.hosts] for _ in self.terms]

    def _variables(self):
        p, inf = self.p, highspy.kHighsInf
        self.pairs = [
            (g, h) for g, guest in enumerate(p.guests) for h, cost in enumerate(guest["cost"]) if cost is not None
        ]
        self.column = {pair: at for at, pair in enumerate(self.pairs)}
        cost = [p.factor * p.guests[g]["cost"][h] for g, h in self.pairs]
        lower, upper = [0.0] * len(cost), [1.0] * len(cost)
        hosts = len(p.hosts)
        # Per term and host: the sum, and a bound of its value.
        self.sum_at, self.value_at = [], []
        for _ in self.terms:
            self.sum_at.append(len(cost))
            cost += [0.0] * hosts
            lower += [0.0] * hosts
            upper += [inf] * hosts
            self.value_at.append(len(cost))
            cost += [p.horizon] * hosts
            lower += [0.0] * hosts
            upper += [inf] * hosts
        # Per host: how many guests leave, how many come. Implied to be whole, and good to branch on.
        self.leave_at = len(cost)
        self.come_at = self.leave_at + hosts
        cost += [0.0] * 2 * hosts
        lower += [0.0] * 2 * hosts
        upper += [float(len(p.guests))] * 2 * hosts
        self.columns = len(cost)
        empty = np.array([], dtype=np.int32)
        self.highs.addCols(
            len(cost), np.array(cost), np.array(lower), np.array(upper), 0, empty, empty, np.array([])
        )

    def _row(self, low, high, terms):
        index = np.array([c for c, _ in terms], dtype=np.int32)
        value = np.array([v for _, v in terms], dtype=float)
        self.highs.addRow(low, high, len(terms), index, value)

    def _rows(self):
        p, inf = self.p, highspy.kHighsInf
        here = [[] for _ in p.hosts]
        for g, h in self.pairs:
            here[h].append(g)
        for g, guest in enumerate(p.guests):
            hosts = [h for h, cost in enumerate(guest["cost"]) if cost is not None]
            self._row(1.0, 1.0, [(self.column[g, h], 1.0) for h in hosts])
        for h, host in enumerate(p.hosts):
            of = [(self.column[g, h], g) for g in here[h]]
            demand = [(c, p.demand[g]) for c, g in of]
            self._row(0.0, 0.0, demand + [(self.sum_at[0] + h, -1.0)])
            memory = [(c, p.memory[g] / 1024) for c, g in of]
            self._row(-inf, host["capacity_mib"] / 1024, memory)
            if len(self.terms) > 1:
                self._row(0.0, 0.0, memory + [(self.sum_at[1] + h, -1.0)])
            homes = [(c, 1.0) for c, g in of if p.guests[g]["home"] == h]
            comes = [(c, 1.0) for c, g in of if p.guests[g]["home"] != h]
            stay = float(len(homes))
            self._row(stay, stay, homes + [(self.leave_at + h, 1.0)])
            self._row(0.0, 0.0, comes + [(self.come_at + h, -1.0)])
        for rule in p.apart:
            places = sorted(set(rule["place"]))
            for place in places:
                terms = [
                    (self.column[g, h], 1.0)
                    for g in rule["members"]
                    for h, its in enumerate(rule["place"])
                    if its == place and (g, h) in self.column
                ]
                if len(terms) > 1:
                    self._row(-inf, 1.0, terms)

    def tangent(self, term, h, at):
        """value ≥ f(at) + f'(at)·(sum − at)."""
        scale = 1024.0 if term == 1 else 1.0
        value, slope = self.terms[term](h, at * scale)
        slope *= scale
        known = self.points[term][h]
        if any(abs(at - other) < 1e-7 for other in known):
            return False
        known.append(at)
        self._row(
            value - slope * at,
            highspy.kHighsInf,
            [(self.value_at[term] + h, 1.0), (self.sum_at[term] + h, -slope)],
        )
        return True

    def tangents_at(self, sums):
        """Tangents where a solution lies."""
        return sum(self.tangent(t, h, float(sums[t][h])) for t in range(len(self.terms)) for h in range(len(sums[t])))

    def tangents_of(self, placement):
        """Tangents where a placement lies."""
        demand, memory = self.p.sums(placement)
        return self.tangents_at([demand, memory / 1024][: len(self.terms)])

    def error(self, solution):
        """How far the solution's values lie below the functions, guest-seconds."""
        total = 0.0
        for t, term in enumerate(self.terms):
            scale = 1024.0 if t == 1 else 1.0
            for h in range(len(self.p.hosts)):
                at = solution[self.sum_at[t] + h]
                total += max(0.0, term(h, at * scale)[0] - solution[self.value_at[t] + h])
        return total * self.p.horizon

    def sums_of(self, solution):
        n = len(self.p.hosts)
        return [np.array(solution[at : at + n]) for at in self.sum_at]

    def relax(self, tolerance, deadline):
        """Solves the relaxation with tangents where they are needed. Returns its value and reduced costs."""
        for _ in range(200):
            self.highs.run()
            if self.highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                raise RuntimeError(f"relaxation: {self.highs.getModelStatus()}")
            solution = self.highs.getSolution()
            value = np.array(solution.col_value)
            if self.error(value) <= tolerance or time.monotonic() > deadline:
                break
            self.tangents_at(self.sums_of(value))
        return self.highs.getInfo().objective_function_value, value, np.array(solution.col_dual)

    def fix(self, bound, best, value, dual):
        """Fixes what cannot be otherwise in any placement better than the best known. Returns what is open."""
        room = best - bound
        open_pairs = 0
        for c in range(len(self.pairs)):
            if dual[c] > room and value[c] < 1e-7:
                self.highs.changeColBounds(c, 0.0, 0.0)
            elif -dual[c] > room and value[c] > 1 - 1e-7:
                self.highs.changeColBounds(c, 1.0, 1.0)
            else:
                open_pairs += 1
        return open_pairs

    def grid(self, best, tolerance):
        """Tangents so close that between them the functions are missed by no more than the tolerance per host."""
        p = self.p
        for t, term in enumerate(self.terms):
            scale = 1024.0 if t == 1 else 1.0
            for h, host in enumerate(p.hosts):
                high = host["capacity_mib"] / 1024 if t == 1 else 1.6 * host["cores"]
                at, step = 0.0, high / 400
                last = None
                # Bounded: at least one fine step is made each time.
                while at < high:
                    value, slope = term(h, at * scale)
                    if value * p.horizon > best:
                        if slope > 0:
                            break
                        at += step
                        continue
                    if last is not None:
                        # Where the last tangent and this one meet, the function is missed most.
                        last_at, last_value, last_slope = last
                        turn = slope * scale - last_slope
                        if turn <= 1e-12:
                            at += step
                            continue
                        meet = (last_value - last_slope * last_at - value + slope * scale * at) / turn
                        missed = term(h, meet * scale)[0] - (last_value + last_slope * (meet - last_at))
                        if missed * p.horizon < tolerance:
                            at += step
                            continue
                    self.tangent(t, h, at)
                    last = (at, value, slope * scale)
                    at += step

    def solve(self, best_placement, seconds, gap):
        """Runs branch and bound. Returns the bound and a placement, if it has one."""
        p = self.p
        whole = np.array(
            list(range(len(self.pairs))) + list(range(self.leave_at, self.columns)), dtype=np.int32
        )
        kinds = np.array([highspy.HighsVarType.kInteger] * len(whole))
        self.highs.changeColsIntegrality(len(whole), whole, kinds)
        for option, value in (("time_limit", self.highs.getRunTime() + seconds), ("mip_rel_gap", gap)):
            self.highs.setOptionValue(option, value)
        start = highspy.HighsSolution()
        start.col_value = self.values_of(best_placement)
        self.highs.setSolution(start)
        self.highs.run()
        info = self.highs.getInfo()
        value = self.highs.getSolution().col_value
        status = self.highs.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return math.inf, None
        placement = None
        if info.primal_solution_status == 2 and len(value):
            placement = [0] * len(p.guests)
            for c, (g, h) in enumerate(self.pairs):
                if value[c] > 0.5:
                    placement[g] = h
        return info.mip_dual_bound, placement

    def values_of(self, placement):
        """A placement as values of all columns."""
        p, values = self.p, [0.0] * self.columns
        for g, h in enumerate(placement):
            values[self.column[g, h]] = 1.0
            home = p.guests[g]["home"]
            if home != h:
                values[self.come_at + h] += 1
                if home is not None:
                    values[self.leave_at + home] += 1
        demand, memory = p.sums(placement)
        for t, sums in enumerate((demand, memory / 1024)[: len(self.terms)]):
            scale = 1024.0 if t == 1 else 1.0
            for h in range(len(p.hosts)):
                values[self.sum_at[t] + h] = sums[h]
                value = self.terms[t](h, sums[h] * scale)[0]
                values[self.value_at[t] + h] = max(value, 0.0)
        return values


def optimise(problem, best_placement, seconds, threads, log):
    """Bound, value and placement of the best, and the bound of the relaxation."""
    began = time.monotonic()
    deadline = began + seconds
    best = problem.objective(best_placement)
    milp = Milp(problem, threads)
    for h, host in enumerate(problem.hosts):
        for part in (0.0, 0.4, 0.6, 0.8, 1.0, 1.3):
            milp.tangent(0, h, part * host["cores"])
    milp.tangents_of(best_placement)
    bound, value, dual = milp.relax(2e-5 * best, deadline)
    root = bound
    open_pairs = milp.fix(bound, best, value, dual)
    milp.grid(best, 1e-4 * best / len(problem.hosts))
    tangents = sum(len(points) for term in milp.points for points in term)
    log(f"  root {root:.1f} of {best:.1f}, {open_pairs} of {len(milp.pairs)} open, {tangents} tangents")
    for _ in range(20):
        left = deadline - time.monotonic()
        if best - bound <= PROVEN * best or left < 0.5:
            break
        new_bound, placement = milp.solve(best_placement, left, PROVEN / 4)
        # Better placements than the best known may be cut off by fixing: then the best known is the optimum.
        bound = max(bound, min(new_bound, best))
        found = problem.objective(placement) if placement else None
        log(f"  bound {bound:.1f} found {found} best {best:.1f} {time.monotonic() - began:.1f} s")
        if found is not None and found < best:
            best, best_placement = found, placement
        if placement is None:
            continue
        if not milp.tangents_of(placement) and time.monotonic() < deadline - 1:
            # The tangents miss nothing there, and the solver had time: it stopped at its own gap.
            break
    return bound, best, best_placement, root


def part_of(problem, placement, hosts):
    """The problem of some hosts and of the guests that are on them, everything else staying; and those guests."""
    at = {h: n for n, h in enumerate(hosts)}
    chosen = [g for g, h in enumerate(placement) if h in at]
    number = {g: n for n, g in enumerate(chosen)}
    barred = set()
    rules = []
    for rule in problem.apart:
        members = [number[g] for g in rule["members"] if g in number]
        taken = {rule["place"][placement[g]] for g in rule["members"] if g not in number}
        barred.update((g, h) for g in members for h in at if rule["place"][h] in taken)
        rules.append({"members": members, "place": [rule["place"][h] for h in hosts]})
    guests = []
    for n, g in enumerate(chosen):
        guest = problem.guests[g]
        cost = [None if (n, h) in barred else guest["cost"][h] for h in hosts]
        guests.append({**guest, "home": at.get(guest["home"]), "cost": cost})
    part = {
        "horizon": problem.horizon,
        "factor": problem.factor,
        "balance": problem.balance,
        "mean": problem.mean,
        "hosts": [problem.hosts[h] for h in hosts],
        "guests": guests,
        "apart": rules,
    }
    return Problem(part), chosen


def polish(problem, placement, seconds, threads):
    """A better placement, if optimising a few random hosts at a time finds one. Proves nothing."""
    dice = np.random.default_rng(1)
    best = problem.objective(placement)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        few = min(len(problem.hosts), int(dice.integers(2, 4)))
        hosts = sorted(int(h) for h in dice.choice(len(problem.hosts), few, replace=False))
        part, chosen = part_of(problem, placement, hosts)
        at = {h: n for n, h in enumerate(hosts)}
        now = [at[placement[g]] for g in chosen]
        left = min(4.0, deadline - time.monotonic())
        _, _, found, _ = optimise(part, now, left, threads, lambda line: None)
        changed = list(placement)
        for g, h in zip(chosen, found):
            changed[g] = hosts[h]
        objective = problem.objective(changed)
        if objective is not None and objective < best - 1e-6:
            best, placement = objective, changed
    return best, placement


def solve(case, seconds, polishing, threads, log):
    """Bound, best placement and whether the one proves the other."""
    began = time.monotonic()
    problem = Problem(case["instance"])
    best, best_placement = math.inf, None
    for name in ("start", "greedy", "ours", "annealed"):
        known = case[name]
        found = problem.objective(known["placement"])
        # A plan with a detour costs more than its end; nothing else may differ.
        off = known["objective"] - found
        if off < -SAME * known["objective"] or (off > SAME * known["objective"] and name != "ours"):
            raise RuntimeError(f"{case['key']}: {name} is {found} here and {known['objective']} there")
        if found < best:
            best, best_placement = found, known["placement"]
    bound, best, best_placement, root = optimise(problem, best_placement, seconds, threads, log)
    took = time.monotonic() - began
    if best - bound > PROVEN * best and polishing > 0:
        best, best_placement = polish(problem, best_placement, polishing, threads)
        log(f"  polished to {best:.1f}")
    return {
        "bound": bound,
        "best": best,
        "placement": best_placement,
        "proven": bool(best - bound <= PROVEN * best),
        "root": root,
        "seconds": round(took, 1),
    }


def one(name, args):
    with open(name) as file:
        case = json.load(file)
    out = name.removesuffix(".json") + ".exact.json"
    found, lines = None, []
    if os.path.exists(out) and not args.again:
        with open(out) as file:
            found = json.load(file)
        fits = found.get("fingerprint") == case["fingerprint"]
        if not fits or not (found["proven"] or found["limit"] >= args.seconds):
            found = None
        elif found["proven"] or found.get("polished", 0) >= args.polish:
            return
    if found is None:
        found = solve(case, args.seconds, args.polish, args.threads, lines.append)
    else:
        found["best"], found["placement"] = polish(
            Problem(case["instance"]), found["placement"], args.polish, args.threads
        )
        found["proven"] = bool(found["best"] - found["bound"] <= PROVEN * found["best"])
    found.update(key=case["key"], fingerprint=case["fingerprint"], limit=args.seconds, polished=args.polish)
    with open(out + ".new", "w") as file:
        json.dump(found, file)
    os.replace(out + ".new", out)
    state = "proven" if found["proven"] else "open  "
    print(
        f"{case['key']:38} bound {found['bound']:9.1f} best {found['best']:9.1f} {state} {found['seconds']:5.1f} s",
        *lines,
        sep="\n",
        flush=True,
    )


def random_instance(dice, balance):
    """Three small hosts and eight guests, so few that every placement can be looked at."""
    hosts = [
        {
            "name": str(h),
            "cores": float(dice.choice([4, 8])),
            "own": 0.1,
            "variance": float(dice.uniform(0.5, 4)),
            "calibration": 1.0,
            "capacity_mib": 20480,
            "counted": True,
        }
        for h in range(3)
    ]
    guests = []
    for g in range(8):
        home = int(dice.integers(0, 2))
        cost = [None if dice.uniform() < 0.1 else float(dice.uniform(60, 90)) for _ in hosts]
        # The last one must leave, as from a host that is drained.
        cost[home] = None if g == 7 else 0.0
        cost[2] = cost[2] or 60.0
        memory = int(dice.choice([2048, 4096]))
        guests.append({"demand": float(dice.uniform(0.1, 3)), "memory_mib": memory, "home": home, "cost": cost})
    cores = sum(h["cores"] for h in hosts)
    mean = [sum(g["demand"] for g in guests) / cores, sum(g["memory_mib"] for g in guests) / 3 / 20480]
    apart = [{"members": [0, 1], "place": [0, 1, 1]}, {"members": [2, 3, 4], "place": [0, 1, 2]}]
    return {
        "horizon": 3600.0,
        "factor": 1.0,
        "balance": balance,
        "mean": mean,
        "hosts": hosts,
        "guests": guests,
        "apart": apart,
    }


def verify():
    """Compares with looking at every placement. Raises where a bound is none, or the best is not found."""
    compared = 0
    for seed in range(20):
        for balance in (0.0, 1.0):
            problem = Problem(random_instance(np.random.default_rng(seed), balance))
            every = itertools.product(range(3), repeat=len(problem.guests))
            known = [(j, p) for p in every if (j := problem.objective(p)) is not None]
            if not known:
                continue
            optimum, worst = min(known)[0], max(known)[1]
            bound, best, placement, _ = optimise(problem, list(worst), 30, 1, lambda line: None)
            if bound > optimum * (1 + SAME) or best > optimum * (1 + PROVEN) or bound < best * (1 - PROVEN):
                raise RuntimeError(f"seed {seed}: bound {bound}, best {best}, optimum {optimum}")
            if abs(problem.objective(placement) - best) > SAME * best:
                raise RuntimeError(f"seed {seed}: the placement is not worth {best}")
            compared += 1
    print(f"{compared} small fleets: as good as looking at every placement")
    if compared < 20:
        raise RuntimeError("too few could be placed at all")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="files that `fleets cases` wrote")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each case")
    parser.add_argument("--polish", type=float, default=60.0, help="seconds to improve what is not proven")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="solve known cases again")
    parser.add_argument("--verify", action="store_true", help="compare with brute force on small fleets first")
    args = parser.parse_args()
    if args.verify:
        verify()
    for name in args.cases:
        if not name.endswith(".exact.json"):
            one(name, args)


if __name__ == "__main__":
    sys.exit(main())
