//! The linear program, and the proof of its answer in integers.

use std::collections::{BTreeMap, BTreeSet};

use microlp::{ComparisonOp, OptimizationDirection, Problem, SolveOutcome, Variable};

use super::demand::Demand;
use super::supply::{FreeRoom, Offer};
use super::{Amounts, BoundError, RESOURCES};

/// Prices are counted in 2^-40 micro-dollars.
const SCALE: u32 = 40;
/// The solver works in cores, GiB, pods, GPUs and dollars, which are all of one order.
const UNITS: [f64; RESOURCES] = [1000.0, 1024.0 * 1024.0, 1.0, 1.0];

/// Prices of resources by class, and of being the one of its kind on a node.
#[derive(Clone, Debug)]
struct Prices {
    resources: Vec<[i128; RESOURCES]>,
    exclusive: Vec<i128>,
}

/// An exclusive and the classes its pods are of.
type Exclusives = Vec<BTreeSet<usize>>;

/// The value of all demands at the best prices, less what free room is worth.
pub(super) fn bound(
    offers: &[Offer<'_>],
    classes: &[Vec<bool>],
    demands: &[Demand],
    rooms: &[FreeRoom],
) -> Result<u64, BoundError> {
    let signatures: Vec<Vec<bool>> = (0..offers.len())
        .map(|offer| classes.iter().map(|set| set.get(offer) == Some(&true)).collect())
        .collect();
    let mut exclusives: Exclusives = Vec::new();
    for demand in demands {
        if let Some(number) = demand.exclusive {
            exclusives.resize_with(exclusives.len().max(number + 1), BTreeSet::new);
            if let Some(set) = exclusives.get_mut(number) {
                set.insert(demand.class);
            }
        }
    }
    let kept = undominated(offers, &signatures);
    let mut prices = solve(&kept, classes.len(), &exclusives, demands, rooms)?;
    let worst = |prices: &Prices| {
        offers.iter().zip(&signatures).all(|(offer, signature)| {
            let worth = prices.worth(&offer.room, 1, signature, &exclusives);
            worth <= i128::from(offer.price) << SCALE
        })
    };
    while !worst(&prices) {
        prices.lower();
    }
    let mut value: i128 = 0;
    for demand in demands {
        let own = prices.resources.get(demand.class).copied().unwrap_or_default();
        let each: i128 = own.iter().zip(demand.each).map(|(p, n)| p * i128::from(n)).sum();
        let alone = demand.exclusive.and_then(|number| prices.exclusive.get(number));
        value += (each + alone.copied().unwrap_or(0)) * i128::from(demand.count);
    }
    for room in rooms {
        value -= prices.worth(&room.room, room.nodes, &room.classes, &exclusives);
    }
    Ok(u64::try_from(value >> SCALE).unwrap_or(0))
}

impl Prices {
    /// The most that pods of some classes can be worth in this room of so many nodes.
    fn worth(
        &self,
        room: &Amounts,
        nodes: i64,
        signature: &[bool],
        exclusives: &Exclusives,
    ) -> i128 {
        let admitted = |class: &usize| signature.get(*class) == Some(&true);
        let resources: i128 = room
            .iter()
            .enumerate()
            .map(|(resource, amount)| {
                let prices = self.resources.iter().enumerate();
                let prices = prices.filter(|(class, _)| admitted(class));
                let most = prices.filter_map(|(_, p)| p.get(resource)).max().copied();
                most.unwrap_or(0) * i128::from(*amount)
            })
            .sum();
        let alone: i128 = self
            .exclusive
            .iter()
            .zip(exclusives)
            .filter(|(_, classes)| classes.iter().any(admitted))
            .map(|(price, _)| price)
            .sum();
        resources + alone * i128::from(nodes)
    }

    /// A millionth less of everything.
    fn lower(&mut self) {
        let all = self.resources.iter_mut().flatten().chain(&mut self.exclusive);
        for price in all {
            *price = (*price - *price / 1_000_000 - 1).max(0);
        }
    }
}

/// Offers of which no other is as large, as cheap and open to the same classes.
fn undominated<'o>(
    offers: &'o [Offer<'o>],
    signatures: &[Vec<bool>],
) -> Vec<(&'o Offer<'o>, Vec<bool>)> {
    let mut by_signature: BTreeMap<&Vec<bool>, Vec<&Offer<'_>>> = BTreeMap::new();
    for (offer, signature) in offers.iter().zip(signatures) {
        if signature.contains(&true) {
            by_signature.entry(signature).or_default().push(offer);
        }
    }
    let mut kept = Vec::new();
    for (signature, mut offers) in by_signature {
        offers.sort_by_key(|offer| offer.price);
        let mut best: Vec<&Offer<'_>> = Vec::new();
        for offer in offers {
            let covers =
                |other: &&Offer<'_>| other.room.iter().zip(&offer.room).all(|(a, b)| a >= b);
            if !best.iter().any(covers) {
                best.push(offer);
            }
        }
        kept.extend(best.into_iter().map(|offer| (offer, signature.clone())));
    }
    kept
}

/// The variables of one set of classes: the highest price of each resource among them.
type Highest = BTreeMap<Vec<bool>, [Variable; RESOURCES]>;

fn solve(
    offers: &[(&Offer<'_>, Vec<bool>)],
    classes: usize,
    exclusives: &Exclusives,
    demands: &[Demand],
    rooms: &[FreeRoom],
) -> Result<Prices, BoundError> {
    let mut problem = Problem::new(OptimizationDirection::Maximize);
    let positive = (0.0, f64::INFINITY);
    let own: Vec<[Variable; RESOURCES]> = (0..classes)
        .map(|class| {
            std::array::from_fn(|resource| {
                let of_class = demands.iter().filter(|demand| demand.class == class);
                let total = of_class.map(|d| d.each[resource] as f64 * d.count as f64).sum::<f64>();
                problem.add_var(total / UNITS[resource], positive)
            })
        })
        .collect();
    let alone: Vec<Variable> = exclusives
        .iter()
        .enumerate()
        .map(|(number, classes)| {
            let pods: i64 =
                demands.iter().filter(|d| d.exclusive == Some(number)).map(|d| d.count).sum();
            let open =
                |room: &&FreeRoom| classes.iter().any(|c| room.classes.get(*c) == Some(&true));
            let there: i64 = rooms.iter().filter(open).map(|room| room.nodes).sum();
            problem.add_var((pods - there) as f64, positive)
        })
        .collect();
    let mut highest: Highest = BTreeMap::new();
    for room in rooms {
        let weights = std::array::from_fn(|r| -(room.room[r] as f64) / UNITS[r]);
        add_highest(&mut problem, &mut highest, &own, &room.classes, weights);
    }
    for (offer, signature) in offers {
        if !highest.contains_key(signature) {
            add_highest(&mut problem, &mut highest, &own, signature, [0.0; RESOURCES]);
        }
        let Some(most) = highest.get(signature) else { continue };
        let mut row: Vec<(Variable, f64)> = (0..RESOURCES)
            .map(|resource| (most[resource], offer.room[resource] as f64 / UNITS[resource]))
            .collect();
        let admitted = |class: &usize| signature.get(*class) == Some(&true);
        let slots = alone.iter().zip(exclusives).filter(|(_, set)| set.iter().any(admitted));
        row.extend(slots.map(|(variable, _)| (*variable, 1.0)));
        problem.add_constraint(row, ComparisonOp::Le, offer.price as f64 / 1e6);
    }
    let outcome = problem.solve().map_err(|error| BoundError::Solver(error.to_string()))?;
    let SolveOutcome::Solution(solution) = outcome else {
        return Err(BoundError::Solver("interrupted".to_owned()));
    };
    // Dollars a unit to 2^-40 micro-dollars, rounded down.
    let price = |variable: Variable, unit: f64| {
        let dollars = solution.var_value(variable).max(0.0) / unit;
        (dollars * 1e6 * (1_u64 << SCALE) as f64 * (1.0 - 1e-9)).floor() as i128
    };
    Ok(Prices {
        resources: own.iter().map(|v| std::array::from_fn(|r| price(v[r], UNITS[r]))).collect(),
        exclusive: alone.iter().map(|variable| price(*variable, 1.0)).collect(),
    })
}

fn add_highest(
    problem: &mut Problem,
    highest: &mut Highest,
    own: &[[Variable; RESOURCES]],
    signature: &[bool],
    weights: [f64; RESOURCES],
) {
    let most: [Variable; RESOURCES] =
        std::array::from_fn(|resource| problem.add_var(weights[resource], (0.0, f64::INFINITY)));
    for (class, variables) in own.iter().enumerate() {
        if signature.get(class) != Some(&true) {
            continue;
        }
        for resource in 0..RESOURCES {
            let row = [(variables[resource], 1.0), (most[resource], -1.0)];
            problem.add_constraint(row, ComparisonOp::Le, 0.0);
        }
    }
    highest.insert(signature.to_vec(), most);
}
