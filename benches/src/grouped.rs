//! Numbers as people read them.

/// A number with a comma before each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        let numbers = [0, 12, 999, 1000, 104_880_000, 1_048_576];
        assert_eq!(numbers.map(grouped), ["0", "12", "999", "1,000", "104,880,000", "1,048,576"]);
    }
}
