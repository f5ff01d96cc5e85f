// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.27;

import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

/// A real ERC-721 that anybody may mint.
contract Ticket is ERC721 {
    constructor() ERC721("Ticket", "TKT") {}

    function mint(address to, uint256 id) external {
        _mint(to, id);
    }

    function burn(uint256 id) external {
        _burn(id);
    }
}

/// A real ERC-20 that anybody may mint.
contract Coin is ERC20 {
    constructor() ERC20("Coin", "COIN") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// A real ERC-1155 that anybody may mint.
contract Item is ERC1155 {
    constructor() ERC1155("") {}

    function mint(address to, uint256 id, uint256 amount) external {
        _mint(to, id, amount, "");
    }
}

/// Burns all the gas that it is given.
contract Burning {
    fallback() external {
        assembly {
            for {} 1 {} {}
        }
    }
}

/// Has 7 of everything for everybody, but says 0 when it has too little gas to find out.
contract Thirsty {
    function balanceOf(address) external view returns (uint256) {
        try this.look() returns (uint256 found) {
            return found;
        } catch {
            return 0;
        }
    }

    function look() external view returns (uint256) {
        uint256 start = gasleft();
        while (start - gasleft() < 1000000) {}
        return 7;
    }
}

/// Says nothing sensible: an empty answer to every call.
contract Mute {
    fallback() external {}
}

/// Answers every call with a megabyte.
contract Shouting {
    fallback() external {
        assembly {
            return(0, 1048576)
        }
    }
}

/// Reverts every call for a reason of its own.
contract Refusing {
    error NotToday();

    fallback() external {
        revert NotToday();
    }
}
