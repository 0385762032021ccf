//! **Decision.** Which columns there is room for.

/// What a column wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Those with more of it come first.
    pub importance: u8,
    /// Narrower it says nothing.
    pub least: usize,
    /// Wider it gains nothing.
    pub most: usize,
}

/// How wide each column is, with so much between two; 0: there is no room for it.
///
/// First each has the least that it needs, then what is left goes to the important ones. The most important is always
/// there, however narrow.
pub fn fit(wishes: &[Wish], gap: usize, width: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..wishes.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(wishes[*index].importance));
    let mut widths = vec![0; wishes.len()];
    let mut left = width;
    for (place, index) in order.iter().enumerate() {
        let least = wishes[*index].least;
        let need = if place == 0 { 0 } else { gap };
        if place == 0 {
            widths[*index] = least.min(left);
        } else if need + least <= left {
            widths[*index] = least;
        } else {
            // One that is less important and narrower would be seen in its stead, and nobody would know why.
            break;
        }
        left -= need + widths[*index];
    }
    for index in order {
        if widths[index] > 0 {
            let more = wishes[index].most.saturating_sub(widths[index]).min(left);
            widths[index] += more;
            left -= more;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(importance: u8, least: usize, most: usize) -> Wish {
        Wish { importance, least, most }
    }

    #[test]
    fn the_important_stay_and_grow_first() {
        let wishes = [wish(100, 8, 20), wish(10, 5, 30), wish(50, 7, 7)];
        assert_eq!(fit(&wishes, 2, 80), [20, 30, 7]);
        assert_eq!(fit(&wishes, 2, 40), [20, 9, 7]);
        assert_eq!(fit(&wishes, 2, 24), [8, 5, 7]);
        assert_eq!(fit(&wishes, 2, 23), [14, 0, 7]);
        assert_eq!(fit(&wishes, 2, 16), [16, 0, 0]);
        assert_eq!(fit(&wishes, 2, 5), [5, 0, 0]);
        assert_eq!(fit(&wishes, 2, 0), [0, 0, 0]);
        assert!(fit(&[], 2, 80).is_empty());
    }

    #[test]
    fn never_wider_than_there_is_room() {
        let wishes: Vec<_> =
            (0..12).map(|n| wish(n * 7 % 13, 1 + usize::from(n) % 5, 3 * usize::from(n) + 5)).collect();
        for width in 0..200 {
            let widths = fit(&wishes, 2, width);
            let some = widths.iter().filter(|width| **width > 0).count();
            assert!(widths.iter().sum::<usize>() + 2 * some.saturating_sub(1) <= width);
        }
    }
}
